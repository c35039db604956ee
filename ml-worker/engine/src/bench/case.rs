//! What is measured, as it is written on the command line.

use std::str::FromStr;

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// Answers in the making, all at once.
    Decode {
        /// How many.
        batch: usize,
        /// Tokens of each.
        tokens: usize,
        /// Whether tokens are drawn with the keyed noise, instead of taking the likeliest.
        seeded: bool,
        /// Whether every position is recorded, as for an artifact.
        recorded: bool,
    },
    /// The time from a prompt to its first token.
    Prefill {
        /// Length of the prompt.
        tokens: usize,
    },
    /// Reading memory, with nothing of the model: the bound of decoding.
    Bandwidth,
    /// The matrix products of the model's layers and nothing else: the bound of prefill.
    Products {
        /// Tokens computed at once.
        rows: usize,
    },
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Decode { batch, tokens, seeded, recorded } => {
                let (seeded, recorded) =
                    (if *seeded { ":seeded" } else { "" }, if *recorded { ":recorded" } else { "" });
                write!(f, "decode:{batch}:{tokens}{seeded}{recorded}")
            }
            Self::Prefill { tokens } => write!(f, "prefill:{tokens}"),
            Self::Bandwidth => write!(f, "bandwidth"),
            Self::Products { rows } => write!(f, "products:{rows}"),
        }
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text} is none of decode:BATCH:TOKENS[:seeded][:recorded], prefill:TOKENS, bandwidth, products:ROWS"
            )
        };
        let number = |part: Option<&&str>| -> Result<usize, String> {
            part.and_then(|part| part.parse().ok()).filter(|number| *number > 0).ok_or_else(wrong)
        };
        let parts: Vec<&str> = text.split(':').collect();
        match parts[0] {
            "decode" => {
                let options = parts.get(3..).unwrap_or_default();
                if options.iter().any(|option| !matches!(*option, "seeded" | "recorded")) {
                    return Err(wrong());
                }
                let (batch, tokens) = (number(parts.get(1))?, number(parts.get(2))?);
                if tokens < 2 {
                    return Err(format!("{text}: a speed needs two tokens at least"));
                }
                Ok(Self::Decode {
                    batch,
                    tokens,
                    seeded: options.contains(&"seeded"),
                    recorded: options.contains(&"recorded"),
                })
            }
            "prefill" if parts.len() == 2 => Ok(Self::Prefill { tokens: number(parts.get(1))? }),
            "products" if parts.len() == 2 => Ok(Self::Products { rows: number(parts.get(1))? }),
            "bandwidth" if parts.len() == 1 => Ok(Self::Bandwidth),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_should_be_read_when_it_is_well_formed() {
        let decode = |seeded, recorded| Case::Decode { batch: 8, tokens: 64, seeded, recorded };
        assert_eq!("decode:8:64".parse(), Ok(decode(false, false)));
        assert_eq!("decode:8:64:recorded:seeded".parse(), Ok(decode(true, true)));
        assert_eq!("prefill:512".parse(), Ok(Case::Prefill { tokens: 512 }));
        assert_eq!("products:2048".parse(), Ok(Case::Products { rows: 2048 }));
        assert_eq!("bandwidth".parse(), Ok(Case::Bandwidth));
        for case in [decode(true, true), decode(false, true), Case::Prefill { tokens: 3 }, Case::Products { rows: 9 }] {
            assert_eq!(case.to_string().parse(), Ok(case));
        }
    }

    #[test]
    fn case_should_be_refused_when_it_is_not() {
        for text in ["", "decode", "decode:0:8", "decode:8:1", "decode:8:8:fast", "prefill", "prefill:x", "bandwidth:2"]
        {
            assert!(text.parse::<Case>().is_err(), "{text}");
        }
    }
}
