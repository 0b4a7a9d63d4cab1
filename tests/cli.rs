//! The command line from outside: exit codes, streams, messages word for word.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

use std::fs;
use std::io::pipe;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The binary in `folder`, with an empty environment.
fn headwater(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("headwater"));
    command.args(args).current_dir(folder).env_clear();
    command
}

fn run(folder: &Path, args: &[&str]) -> (i32, String, String) {
    read(&headwater(folder, args).output().unwrap())
}

fn read(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn folder_with(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.toml"), text).unwrap();
    folder
}

#[test]
fn check_tells_good_bad_and_unreadable_files_apart() {
    let folder = folder_with("[cores]\nshards = 2\n");
    let good = run(folder.path(), &["check", "a.toml"]);
    assert_eq!(good, (0, "a.toml: ok\n".to_owned(), String::new()));

    let (code, out, err) = run(folder.path(), &["check", "none.toml"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.starts_with("none.toml: error: cannot be read: No such file"), "{err}");

    let folder = folder_with("[cores]\nworker = 2\n\n[publish]\nsilense = \"1s\"\n");
    let want = "\
a.toml:2:1: error: unknown key \"worker\" in [cores]
  |
2 | worker = 2
  | ^^^^^^
  = help: did you mean \"shards\"?
a.toml:5:1: error: unknown key \"silense\" in [publish]
  |
5 | silense = \"1s\"
  | ^^^^^^^
  = help: did you mean \"silence\"?
";
    let bad = run(folder.path(), &["check", "a.toml"]);
    assert_eq!(bad, (78, String::new(), want.to_owned()));
}

#[test]
fn check_is_about_the_file_not_about_the_environment() {
    let folder = folder_with("");
    let mut command = headwater(folder.path(), &["check", "a.toml"]);
    let output = command.env("HEADWATER_CORES_SHARDS", "nonsense").output().unwrap();
    assert_eq!(read(&output).0, 0);
}

#[test]
fn relay_has_the_exit_codes_of_check() {
    let folder = folder_with("[cores]\nshards = 0\n");
    let (code, _, err) = run(folder.path(), &["relay", "--config", "a.toml"]);
    assert_eq!(code, 78, "{err}");
    assert!(err.starts_with("a.toml:2:10: error: [cores] shards: 0 is out of range\n"), "{err}");
    assert_eq!(run(folder.path(), &["relay", "--config", "none.toml"]).0, 1);

    let (code, _, err) = run(folder.path(), &["relay", "--memory", "256M"]);
    let want = "flag --memory: error: [memory] arena: \"256M\" is not a size\n \
                = help: write MiB or MB\n";
    assert_eq!((code, err.as_str()), (78, want));

    let mut command = headwater(folder.path(), &["relay"]);
    let (code, _, err) = read(&command.env("HEADWATER_LISTEN_HTTP", "8080").output().unwrap());
    let want = "environment variable HEADWATER_LISTEN_HTTP: error: [listen] http: \
                \"8080\" is not an address with a port\n = help: \"[::]:8080\"\n";
    assert_eq!((code, err.as_str()), (78, want));
}

#[test]
fn a_command_line_that_cannot_work_is_a_configuration_error() {
    let folder = folder_with("");
    for args in [&["relay", "--htpp", "x"][..], &["relya"], &[], &["relay", "--shards"]] {
        let (code, out, err) = run(folder.path(), args);
        assert_eq!((code, out.as_str()), (78, ""), "{args:?}: {err}");
    }
    for args in [&["--help"][..], &["--version"], &["relay", "--help"], &["help", "keys"]] {
        let (code, out, err) = run(folder.path(), args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");
        assert!(!out.is_empty(), "{args:?}");
    }
}

#[test]
fn print_config_says_what_is_in_force_and_why() {
    let text = "[cores]\npin = false\nshards = 2\n[streams]\nmax = 3\n[limits]\nviewers = 5\n";
    let folder = folder_with(text);
    let args = ["relay", "--config", "a.toml", "--shards", "4", "--print-config"];
    let mut command = headwater(folder.path(), &args);
    command.env("HEADWATER_STREAMS_MAX", "7").env("HEADWATER_CORES_SHARDS", "3");
    let (code, out, err) = read(&command.output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""));
    for line in [
        "shards = \"4\"  # flag: --shards",
        "max = 7  # environment: HEADWATER_STREAMS_MAX",
        "viewers = 5  # a.toml:7",
        // A flag that was not given must not reset what the file says.
        "pin = false  # a.toml:2",
        "window = \"30s\"  # default",
    ] {
        assert!(out.lines().any(|have| have == line), "{line}\n{out}");
    }
    fs::write(folder.path().join("printed.toml"), &out).unwrap();
    assert_eq!(run(folder.path(), &["check", "printed.toml"]).0, 0, "what is printed is a file");
}

#[test]
fn print_config_without_sources_is_the_shipped_file() {
    let folder = folder_with("");
    let (_, out, _) = run(folder.path(), &["relay", "--print-config"]);
    let without = out.replace("  # default\n", "\n");
    assert_eq!(without, include_str!("../tuning/headwater.toml"));
}

#[test]
fn a_new_key_has_the_hash_that_it_was_printed_with() {
    let folder = folder_with("");
    let (code, out, err) = run(folder.path(), &["keys", "new"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let after = |name| out.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    let (key, line) = (after("key:"), after("config:"));
    assert_eq!(key.len(), 32, "160 bits in base 32");
    assert!(!run(folder.path(), &["keys", "new"]).1.contains(key), "each key is a new one");

    fs::write(folder.path().join("key"), format!("{key}\n")).unwrap();
    let mut command = headwater(folder.path(), &["keys", "hash"]);
    command.stdin(fs::File::open(folder.path().join("key")).unwrap());
    let (code, hash, err) = read(&command.output().unwrap());
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(line, format!("keys = [\"{}\"]", hash.trim()));

    fs::write(folder.path().join("a.toml"), format!("[publish]\n{line}\n")).unwrap();
    assert_eq!(run(folder.path(), &["check", "a.toml"]).0, 0);

    let mut command = headwater(folder.path(), &["keys", "hash"]);
    let (code, out, err) = read(&command.stdin(Stdio::null()).output().unwrap());
    assert_eq!((code, out.as_str(), err.as_str()), (1, "", "error: there is no key on stdin\n"));
}

#[test]
fn a_reader_that_is_gone_is_a_normal_end_and_a_full_disk_is_not() {
    let folder = folder_with("");
    for args in [&["relay", "--print-config"][..], &["--help"], &["keys", "new"]] {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let (code, _, err) = read(&headwater(folder.path(), args).stdout(writer).output().unwrap());
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}");

        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (code, _, err) = read(&headwater(folder.path(), args).stdout(full).output().unwrap());
        assert_eq!(code, 1, "{args:?}");
        assert!(err.starts_with("error: cannot write to stdout: "), "{err}");
    }
    // Nobody reads the complaint either: the exit code still says it.
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let output = headwater(folder.path(), &["relya"]).stderr(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
}
