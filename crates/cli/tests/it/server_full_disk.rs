//! A disk that is full: requests that cannot be audited fail, those that were answered keep their lines, and with room the
//! same server goes on.
//!
//! The disk is a file system in memory of some MiB, in a mount namespace of its own (`unshare`). Where namespaces are not
//! allowed, files that may not grow beyond a length take its place (`ulimit -f`): then there is no room until a restart.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::server_kills::{ask, check_usage, make_model, request_lines, start};
use crate::support::program;

const COMPLETION: (&str, &str) = ("/v1/completions", r#"{"model": "toy", "prompt": "a", "max_tokens": 1}"#);
/// Requests until a disk must be full; a line has about 500 bytes.
const MOST_REQUESTS: usize = 20_000;

/// A shell in whose namespace the small disk is mounted.
struct SmallDisk {
    shell: Child,
    orders: ChildStdin,
}

impl SmallDisk {
    /// Mounts it at `place`; `None` where this is not allowed.
    fn mount(place: &Path) -> Option<SmallDisk> {
        let mut shell = Command::new("unshare")
            .args(["-rm", "sh"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut orders = shell.stdin.take()?;
        let done = place.with_extension("mounted");
        let order = format!(
            "mount -t tmpfs -o size=16m none '{}' && touch '{}' || exit 1\n",
            place.display(),
            done.display()
        );
        let asked = orders.write_all(order.as_bytes());
        while asked.is_ok() && !done.exists() {
            if shell.try_wait().ok()?.is_some() {
                return None;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        asked.ok().map(|()| SmallDisk { shell, orders })
    }

    /// A path of the disk, for who is not inside.
    fn seen_from_outside(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.shell.id(), path.display()))
    }

    /// A program that runs inside.
    fn inside(&self, program: &Command) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.shell.id().to_string(), "-U", "-m", "--preserve-credentials", "--"]);
        command.arg(program.get_program()).env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
        command
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.orders.write_all(b"exit 0\n");
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

/// Asks until something fails; the ids of what was answered.
fn ask_until_it_fails(address: &str, key: &str) -> Vec<String> {
    let mut answered = Vec::new();
    for _ in 0..MOST_REQUESTS {
        match ask(address, key, COMPLETION.0, COMPLETION.1) {
            Some(id) => answered.push(id),
            None => return answered,
        }
    }
    panic!("the disk is never full");
}

#[test]
fn a_full_disk_loses_no_line_of_an_answered_request() {
    let folder = tempfile::tempdir().unwrap();
    let (model, place) = (folder.path().join("model"), folder.path().join("disk"));
    make_model(&model);
    std::fs::create_dir(&place).unwrap();
    let disk = SmallDisk::mount(&place);
    let run = || match &disk {
        Some(disk) => disk.inside(&program()),
        None => program(),
    };
    let state = place.join("state");
    let filler = disk.as_ref().map(|disk| disk.seen_from_outside(&place.join("filler")));
    let made = run().args(["keys", "new", "--role", "admin", "--state"]).arg(&state).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = String::from_utf8(made.stdout).unwrap().trim().to_string();
    let begun = if disk.is_some() { run() } else { with_short_files() };
    let (mut server, address) = start(begun, &model, &state);
    let mut answered = vec![ask(&address, &key, "/v1/models", "").unwrap()];
    if let Some(filler) = &filler {
        fill(filler);
    }
    answered.extend(ask_until_it_fails(&address, &key));
    for _ in 0..20 {
        // Some may still find room.
        answered.extend(ask(&address, &key, COMPLETION.0, COMPLETION.1));
    }
    assert!(server.0.try_wait().unwrap().is_none(), "the server lives");
    if let Some(filler) = &filler {
        std::fs::remove_file(filler).unwrap();
        answered.push(ask(&address, &key, COMPLETION.0, COMPLETION.1).expect("with room it goes on"));
        fill(filler);
        answered.extend(ask_until_it_fails(&address, &key));
    }
    server.0.kill().unwrap(); // SIGKILL, on a full disk
    server.0.wait().unwrap();
    if let Some(filler) = &filler {
        std::fs::remove_file(filler).unwrap();
    }
    let (mut server, address) = start(run(), &model, &state);
    answered.push(ask(&address, &key, COMPLETION.0, COMPLETION.1).unwrap());
    let asked = Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status().unwrap();
    assert!(asked.success() && server.0.wait().unwrap().success());
    let verified = run().args(["--json", "verify"]).arg(&state).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let lines = request_lines(&run, &state);
    let written: std::collections::BTreeSet<&str> =
        lines.iter().filter_map(|line| line["id"].as_str()).collect();
    let lost: Vec<&String> = answered.iter().filter(|id| !written.contains(id.as_str())).collect();
    assert!(lost.is_empty(), "{} of {} answered requests have no line: {lost:?}", lost.len(), answered.len());
    check_usage(&run, &state, &lines);
}

/// The program with files that may not grow, in units of 512 bytes or, in some shells, of 1024.
fn with_short_files() -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 400; exec \"$0\" \"$@\""]).arg(program().get_program());
    command
}

/// Takes what room there is.
fn fill(filler: &Path) {
    let mut file = std::fs::File::options().create(true).append(true).open(filler).unwrap();
    let mut piece = vec![1; 1 << 16];
    while piece.len() >= 64 {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
}
