//! Who descends from a process, as `/proc` tells (proc(5), `/proc/PID/stat`). Signals are sent elsewhere.

use std::collections::BTreeMap;
use std::fs;

use nix::unistd::Pid;

/// The processes whose parent is `pid`, zombies included. Empty where `/proc` cannot be read.
pub fn children(pid: Pid) -> Vec<Pid> {
    parents().into_iter().filter(|&(_, parent)| parent == pid).map(|(child, _)| child).collect()
}

/// All that descend from `pid`, `pid` itself left out. A process whose parent died hangs below the nearest subreaper.
pub fn descendants(pid: Pid) -> Vec<Pid> {
    let parents = parents();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&above) = found.get(next) {
        found.extend(
            parents.iter().filter(|&(child, &parent)| parent == above && *child != pid).map(|(child, _)| *child),
        );
        next += 1;
    }
    found.split_off(1)
}

fn parents() -> BTreeMap<Pid, Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read(entry.path().join("stat")).ok()?;
            Some((Pid::from_raw(pid), parent(&String::from_utf8_lossy(&stat))?))
        })
        .collect()
}

/// The command name stands in parentheses and may itself hold blanks and parentheses: only the last `)` ends it.
fn parent(stat: &str) -> Option<Pid> {
    let (_, after) = stat.rsplit_once(')')?;
    after.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_parentheses_does_not_shift_the_fields() {
        assert_eq!(parent("7 (a) b (c)) S 42 7 7 0"), Some(Pid::from_raw(42)));
        assert_eq!(parent("garbage"), None);
    }

    #[test]
    fn a_child_and_its_child_descend_from_this_process() {
        let mut shell =
            std::process::Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().expect("sh is on every Debian");
        let pid = Pid::from_raw(shell.id() as i32);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while descendants(pid).is_empty() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        let below = descendants(pid);
        let mine = descendants(Pid::this());
        for &sleep in &below {
            nix::sys::signal::kill(sleep, nix::sys::signal::Signal::SIGKILL).expect("it runs");
        }
        shell.wait().expect("it ends with its sleep");
        assert_eq!(below.len(), 1);
        assert!(mine.contains(&pid) && mine.contains(&below[0]));
    }
}
