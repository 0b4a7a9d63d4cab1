//! `headwater sim --must`: one row of what must be reached, with many seeds.

use std::fmt::Write;
use std::process::ExitCode;

use crate::cli::output;
use crate::cli::sim::{Args, plan, play, seeds};
use crate::sim::figures::Values;
use crate::sim::musts::{MUSTS, Must, Outcome};

/// Seeds of a row, and seconds of each world, if nobody says otherwise.
const SEEDS: u64 = 5;
const SECONDS: f64 = 90.0;

/// What `--must` names.
#[derive(Clone, Debug)]
pub enum Row {
    /// All rows are listed, with their commands.
    List,
    /// One is played.
    One(Must),
}

/// The row of a name.
pub fn row(name: &str) -> Result<Row, String> {
    let known = || {
        let names: Vec<&str> = MUSTS.iter().map(|must| must.name).collect();
        format!("list, or one of {}", names.join(", "))
    };
    match name {
        "list" => Ok(Row::List),
        name => Must::named(name).map(Row::One).ok_or_else(known),
    }
}

/// Lists the rows, or plays one.
pub fn must(args: &Args, row: &Row) -> ExitCode {
    match row {
        Row::List => {
            let mut text = String::new();
            for Must { name, about, audience, .. } in MUSTS {
                let command = format!("headwater sim --must {name}");
                let _ = writeln!(text, "{command:<36} # {audience} viewers: {about}");
            }
            output::say(&text)
        }
        Row::One(must) => play_row(args, *must),
    }
}

fn play_row(args: &Args, must: Must) -> ExitCode {
    let mut must = must;
    must.audience = args.peers.map_or(must.audience, |peers| peers as usize);
    let mut like = plan(args, args.seed);
    if args.seconds.is_none() {
        like.time = std::time::Duration::from_secs_f64(SECONDS);
    }
    let mut outcome = Outcome::new(must);
    for seed in seeds(args, SEEDS) {
        let mut worlds = Vec::new();
        for plan in must.plans(&like, seed) {
            match play(plan) {
                Ok((report, line)) => {
                    output::say(&line);
                    worlds.push(Values::of(&report));
                }
                Err(why) => {
                    output::complain(&format!("error: {why}\n"));
                    return ExitCode::FAILURE;
                }
            }
        }
        outcome.add(&worlds);
    }
    output::say(&outcome.to_string());
    if outcome.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
