mod dealing;
mod invariants;
mod offchain;
mod opening;
mod try_state;
