//! Draws the output of `make demo`, which it reads from standard input, as an animated SVG on standard output: one frame for each step
//! that is shown. `examples/recording/record` writes `docs/demo.svg` with it.

mod svg;

use std::process::ExitCode;

/// The steps that are shown, by the start of their heading in the walkthrough.
const STEPS: [&str; 5] = ["Join:", "Errors:", "Drift:", "Set: each Node", "Ask:"];

fn main() -> ExitCode {
    let text = match std::io::read_to_string(std::io::stdin()) {
        Ok(text) => text,
        Err(error) => {
            eprintln!("recording: {error}");
            return ExitCode::FAILURE;
        }
    };
    let frames = svg::frames(&text, &STEPS);
    if frames.len() != STEPS.len() {
        eprintln!(
            "recording: {} of the {} steps are in what `make demo` printed; did it end well?",
            frames.len(),
            STEPS.len()
        );
        return ExitCode::FAILURE;
    }
    print!("{}", svg::draw(&frames));
    ExitCode::SUCCESS
}
