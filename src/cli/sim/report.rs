//! `headwater sim --report`: the same scenario for many audiences, seeds and policies, with
//! tables and plots of what came of it.
//!
//! All that is known is written after each world, so that hours are not lost, and who gives the
//! same directory again goes on there.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use crate::cli::output;
use crate::cli::sim::{Args, plan, play, seeds};
use crate::sim::figures::Values;
use crate::sim::played::{Key, Played, Worlds};
use crate::sim::policy::Policy;
use crate::sim::{Plan, plots, tables};

/// Where a line for each world goes.
const LINES: &str = "report.csv";

/// Where the tables go.
const TABLES: &str = "report.md";

/// Plays what was not played yet.
pub fn report(args: &Args, dir: &Path) -> ExitCode {
    match make(args, dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            output::complain(&format!("error: {why}\n"));
            ExitCode::FAILURE
        }
    }
}

fn make(args: &Args, dir: &Path) -> Result<(), String> {
    fs::create_dir_all(dir).map_err(|why| format!("cannot make {}: {why}", dir.display()))?;
    let mut worlds = read(dir, args)?;
    // Shows before the first hour whether there is room for the last one.
    write(dir, args, &worlds)?;
    let jobs = jobs(args);
    for (at, key) in jobs.iter().enumerate() {
        if worlds.has(*key) {
            continue;
        }
        let plan = planned(args, *key);
        let command = plan.command();
        let (report, line) = play(plan)?;
        worlds.add(Played { key: *key, values: Values::of(&report), command });
        write(dir, args, &worlds)?;
        let policy = key.policy.name();
        output::say(&format!("[{}/{}] {policy}, {line}", at + 1, jobs.len()));
    }
    output::say(&format!("{} and plots beside it\n", dir.join(TABLES).display()));
    Ok(())
}

/// All worlds: what is small first, so that there is soon something to be seen.
fn jobs(args: &Args) -> Vec<Key> {
    let mut jobs = Vec::new();
    for audience in &args.audiences {
        for seed in seeds(args, 1) {
            for policy in &args.policies {
                let key = Key { audience: *audience as usize, seed, policy: *policy };
                jobs.push(key);
            }
        }
    }
    jobs.sort_unstable();
    jobs.dedup();
    jobs
}

fn planned(args: &Args, key: Key) -> Plan {
    let mut plan = Plan { peers: key.audience, ..plan(args, key.seed) };
    key.policy.apply(&mut plan.scenario);
    plan
}

/// What was played before.
fn read(dir: &Path, args: &Args) -> Result<Worlds, String> {
    let path = dir.join(LINES);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(Worlds::default()),
        Err(why) => return Err(format!("cannot read {}: {why}", path.display())),
    };
    let other = |what: &str| format!("{} is {what}: give another directory", path.display());
    let (worlds, broken) = Worlds::read(&text).ok_or_else(|| other("of another version"))?;
    if worlds.iter().any(|played| played.command != planned(args, played.key).command()) {
        return Err(other("of other worlds"));
    }
    let known = worlds.iter().count();
    if known + broken > 0 {
        output::say(&format!("{known} worlds were played before, {broken} lines are broken\n"));
    }
    Ok(worlds)
}

/// Writes all that is known.
fn write(dir: &Path, args: &Args, worlds: &Worlds) -> Result<(), String> {
    replace(dir, LINES, &worlds.text())?;
    for (name, svg) in plots::plots(worlds) {
        replace(dir, &name, &svg)?;
    }
    let plan = plan(args, args.seed);
    let title = format!("headwater sim: {}, {}", plan.scenario.name, plan.scenario.about);
    replace(dir, TABLES, &tables::report(worlds, &title, &command(args, dir)))
}

/// Puts a file in the place of the one before at once: a reader sees one or the other.
fn replace(dir: &Path, name: &str, text: &str) -> Result<(), String> {
    let (path, new) = (dir.join(name), dir.join(format!("{name}.new")));
    let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
    written.map_err(|why| format!("cannot write {}: {why}", path.display()))
}

/// How to make all of it again.
fn command(args: &Args, dir: &Path) -> String {
    let list = |texts: Vec<String>| texts.join(",");
    let audiences = list(args.audiences.iter().map(ToString::to_string).collect());
    let policies = list(args.policies.iter().map(|policy| policy.name().to_owned()).collect());
    let mode = args.mode.map_or(String::new(), |mode| format!(" --mode {}", mode.word()));
    format!(
        "headwater sim --report {} --seed {} --seeds {} --audiences {audiences} \\\n  \
         --policies {policies}{mode} {}",
        dir.display(),
        args.seed,
        args.seeds.unwrap_or(1),
        plan(args, args.seed).setting()
    )
}

/// The policy of a name.
pub fn policy(name: &str) -> Result<Policy, String> {
    Policy::named(name).ok_or_else(|| {
        let known = Policy::ALL.map(|policy| format!("{} ({})", policy.name(), policy.about()));
        format!("known are {}", known.join("; "))
    })
}
