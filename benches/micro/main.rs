//! Micro-benchmarks of the pure parts of the data plane. What is done is in [`cases`]; here it is timed by divan, or done a known number
//! of times in [`count::counted`], where callgrind counts instructions. `scripts/micro` runs both and makes a table of them.

mod cases;
mod count;
mod inner;
mod nodes;
mod session;

/// The simulated internet of the tests, where nodes come up.
#[path = "../../tests/it"]
#[allow(dead_code, reason = "the tests need more of it")]
mod it {
    pub mod sim;
}

use divan::Bencher;

use self::cases::Case;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["list"] => count::list(),
        ["count", name] => count::run(name),
        _ => divan::main(),
    }
}

#[divan::bench(args = cases::names(), sample_size = 32, min_time = 0.3)]
fn body(bencher: Bencher<'_, '_>, name: &str) {
    let Case { fresh, mut body, .. } = cases::find(name).expect("divan has its names from there");
    bencher.with_inputs(fresh).bench_local_refs(|input| body(input));
}
