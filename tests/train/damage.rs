//! Checkpoints that are damaged or of another run; a disk that is full.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::support::{Site, text};

const STATE: &str = "state.safetensors";

fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_made_again() {
    let site = Site::new();
    site.trained(&["--steps", "12"]);
    flip_a_bit(&site.checkpoint(12, STATE));
    let ended = site.trained(&[]);
    ended.says(&["step-00000012", "damaged", "going on after step 8"]);
    site.is_as_unbroken();
}

#[test]
fn without_a_good_checkpoint_nothing_is_thrown_away() {
    let site = Site::new();
    site.trained(&["--steps", "5"]);
    for step in [4, 5] {
        let state = site.checkpoint(step, STATE);
        let length = fs::metadata(&state).unwrap().len();
        let file = fs::File::options().write(true).open(&state).unwrap();
        file.set_len(length - 1).unwrap();
    }
    site.train(&[])
        .refused(&["none of the 2 checkpoints", "--out"]);
    assert_eq!(site.checkpoints(), [4, 5]);
    assert_eq!(site.lines("metrics.jsonl").len(), 5);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let (site, other) = (Site::new(), Site::new());
    site.trained(&["--steps", "4"]);
    other.trained(&["--steps", "8", "--seed", "6"]);
    let name = "checkpoints/step-00000008";
    fs::rename(other.run().join(name), site.run().join(name)).unwrap();
    site.train(&[])
        .refused(&["of another configuration", "--out"]);
}

/// A file system of its own that is soon full; unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    /// None where this user may not mount.
    fn mount(at: &Path, bytes: u64) -> Option<SmallDisk<'_>> {
        fs::create_dir(at).unwrap();
        let options = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs", text(at)])
            .output();
        mounted
            .is_ok_and(|output| output.status.success())
            .then_some(SmallDisk(at))
    }

    fn enlarge(&self) {
        let status = Command::new("mount")
            .args(["-o", "remount,size=64m", text(self.0)])
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_fails_the_run_and_costs_no_checkpoint() {
    // How large a checkpoint is.
    let probe = Site::new();
    probe.trained(&["--steps", "1"]);
    let bytes = fs::metadata(probe.checkpoint(1, STATE)).unwrap().len();

    let site = Site::new();
    let run = site.run();
    // Room for two checkpoints and the small files, not for a third.
    let Some(disk) = SmallDisk::mount(&run, 2 * bytes + bytes / 2 + (256 << 10)) else {
        eprintln!("skipped: a small file system cannot be mounted here");
        return;
    };
    let ended = site.train(&[]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    ended.says(&["disk full while saving step 12", "make room", "resume"]);
    assert_eq!(site.checkpoints(), [4, 8]);
    disk.enlarge();
    site.trained(&[]).says(&["going on after step 8"]);
    site.is_as_unbroken();
}
