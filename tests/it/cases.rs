//! How many cases a property has. Those of one value alone take proptest's own number, and read nothing from here.

use proptest::test_runner::Config;

/// A story on the simulated internet takes a thousand times as long as a value does.
const STORIES: u32 = 64;

/// For properties that play a story: [`STORIES`], or PROPTEST_CASES where it is set, which proptest reads for its default.
#[expect(clippy::disallowed_methods, reason = "whether it is there; what it says is read by proptest")]
pub fn of_stories() -> Config {
    let asked = std::env::var_os("PROPTEST_CASES").is_some();
    if asked { Config::default() } else { Config::with_cases(STORIES) }
}
