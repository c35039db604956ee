mod clock;
mod freeze;
mod invariants;
mod race;
mod try_state;
mod votes;
