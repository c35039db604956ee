// The cases of `cases.rs`.

/// Names of the cases, in the order of their numbers.
pub const NAMES: [&str; 11] = [
	"committee_new",
	"verify_key",
	"deal",
	"decode_dealing",
	"decode_and_verify_dealing",
	"sum_decode_add_encode",
	"open_one_member",
	"decode_and_verify_opening",
	"interpolate",
	"value",
	"seats",
];
