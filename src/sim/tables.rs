//! A report in words and tables.

use std::fmt::Write;

use crate::sim::egress::Class;
use crate::sim::figures::unit;
use crate::sim::played::Worlds;
use crate::sim::plots;
use crate::sim::policy::Policy;

/// The tables: what is in each, and its figure.
const TABLES: [(&str, &str); 17] = [
    ("Offload", "offload"),
    ("Offload, joining included", "offload_whole"),
    ("Delay behind live, p50", "delay_p50"),
    ("Delay behind live, p99", "delay_p99"),
    ("Delay behind live, p99.9", "delay_p999"),
    ("Arrival delay, p50", "arrival_p50"),
    ("Arrival delay, p99", "arrival_p99"),
    ("Arrival delay, p99.9", "arrival_p999"),
    ("Stalls that nothing explains", "stalls_per_hour"),
    ("Stalls that the network explains", "excused_per_hour"),
    ("Played slower", "slower"),
    ("Startup, p50", "startup_p50"),
    ("Startup, p95", "startup_p95"),
    ("Came twice or in vain", "duplicates"),
    ("Control", "control"),
    ("What leaves the relay", "egress"),
    ("What leaves the relay, joining included", "whole"),
];

/// A report: `title` says what was played, `again` how to make it again.
#[must_use]
pub fn report(worlds: &Worlds, title: &str, again: &str) -> String {
    let mut text = format!("# {title}\n\nMade by\n\n```sh\n{again}\n```\n\n");
    text.push_str(
        "Each cell is the least / the middle / the greatest over the seeds. Offload, duplicates, \
         control\nand what leaves the relay are those of the last minute, or of the whole run if \
         that is shorter;\n`report.csv` has a line for each world with all figures and the command \
         that plays it again.\n\n",
    );
    for policy in worlds.policies() {
        let _ = writeln!(text, "- **{}**: {}.", policy.name(), policy.about());
    }
    text.push('\n');
    for file in plots::files() {
        let _ = writeln!(text, "![{0}]({0})", file);
    }
    for (name, figure) in TABLES {
        table(&mut text, worlds, name, figure);
    }
    classes(&mut text, worlds);
    bad(&mut text, worlds);
    text
}

/// Ends the head of a table with so many columns behind the first.
fn rule(text: &mut String, columns: usize) {
    let _ = writeln!(text, "\n|---|{}", "---|".repeat(columns));
}

fn table(text: &mut String, worlds: &Worlds, name: &str, figure: &str) {
    let policies = worlds.policies();
    let unit = unit(figure);
    let _ = write!(text, "\n## {name}\n\n| viewers |");
    for policy in &policies {
        let _ = write!(text, " {},{unit} |", policy.name());
    }
    rule(text, policies.len());
    for size in worlds.audiences() {
        let _ = write!(text, "| {size} |");
        for policy in &policies {
            let range = worlds.range(*policy, size, figure);
            let cell = range.map_or("-".to_owned(), |range| range.to_string());
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
}

/// What the relay sends, by class.
fn classes(text: &mut String, worlds: &Worlds) {
    text.push_str(
        "\n## What leaves the relay for what\n\nIn copies of the stream, of the whole run. Each \
         byte of UDP payload that leaves the relay's host is of\none class; of those of chunks the \
         last that fits counts:\n\n",
    );
    for class in Class::ALL {
        let _ = writeln!(text, "- **{}**: {}.", class.name(), class.about());
    }
    for policy in worlds.policies() {
        let file = plots::split_file(policy);
        let _ = write!(text, "\n### {}\n\n![{file}]({file})\n\n| viewers |", policy.name());
        for class in Class::ALL {
            let _ = write!(text, " {} |", class.name());
        }
        rule(text, Class::ALL.len());
        for size in worlds.audiences() {
            let cells = Class::ALL.map(|class| {
                let range = worlds.range(policy, size, &format!("whole_{}", class.column()));
                range.map_or("-".to_owned(), |range| range.to_string())
            });
            let _ = writeln!(text, "| {size} | {} |", cells.join(" | "));
        }
    }
}

/// Worlds of the swarm that were not as they should be. Of the others nobody says what should be.
fn bad(text: &mut String, worlds: &Worlds) {
    let own: Vec<_> = worlds.iter().filter(|one| one.key.policy == Policy::Swarm).collect();
    let bad = own.iter().filter(|one| one.values.get("failures").is_some_and(|n| n > 0.0));
    let bad: Vec<_> = bad.collect();
    let _ = writeln!(
        text,
        "\n## Verdict\n\n{} of {} worlds of the swarm were bad.",
        bad.len(),
        own.len()
    );
    if !bad.is_empty() {
        text.push_str("\n```sh\n");
        bad.iter().for_each(|one| _ = writeln!(text, "{}", one.command));
        text.push_str("```\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::figures::FIGURES;
    use crate::sim::played::tests::{world, worlds};

    #[test]
    fn tables_have_a_row_for_each_size_and_a_column_for_each_policy() {
        let text = report(&worlds(), "Steady", "headwater sim --report there");
        let table = "\n## Offload\n\n| viewers | swarm, % | relay, % |\n|---|---|---|\n\
                     | 10 | 40.0 / 45.0 / 50.0 | -11.0 / -11.0 / -11.0 |\n\
                     | 100 | 70.0 / 80.5 / 90.0 | -11.0 / -11.0 / -11.0 |\n";
        assert!(text.contains(table), "{text}");
        assert!(text.starts_with("# Steady\n\nMade by\n\n```sh\nheadwater sim --report there\n"));
        assert!(text.contains("0 of 6 worlds of the swarm were bad.\n"), "{text}");
        for class in Class::ALL {
            assert!(text.contains(&format!("- **{}**: {}.", class.name(), class.about())));
        }
        let columns = |line: &str| line.matches('|').count();
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert!(
            lines.windows(2).all(|two| {
                columns(two[0]) == columns(two[1]) || two[1].starts_with("| viewers")
            })
        );
        for (_, figure) in TABLES {
            assert!(FIGURES.iter().any(|known| known.name == figure), "{figure}");
        }
    }

    #[test]
    fn a_bad_world_is_named_with_its_command_and_what_was_not_played_is_left_open() {
        let mut worlds = worlds();
        worlds.add(world(Policy::Swarm, 30, 9, ("failures", 2.0)));
        worlds.add(world(Policy::Relay, 30, 9, ("failures", 2.0)));
        worlds.add(world(Policy::Relay, 1_000, 1, ("offload", -12.0)));
        let text = report(&worlds, "", "");
        let end = "1 of 7 worlds of the swarm were bad.\n\n```sh\n\
                   headwater sim --seed 9 --peers 30\n```\n";
        assert!(text.ends_with(end), "{text}");
        assert!(text.contains("| 1000 | - | -12.0 / -12.0 / -12.0 |"), "{text}");
    }
}
