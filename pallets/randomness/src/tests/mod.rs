mod dealing;
mod invariants;
mod keys;
mod offchain;
mod opening;
mod try_state;
