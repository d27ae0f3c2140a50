//! A Linux guest: a kernel in a virtual machine that uses a bdev of a target of the test's, by its own NVMe/TCP host or by vhost.

use std::{ffi::OsStr, fs, path::Path, process::Command, time::Duration};

use crate::{app::App, script, wait::wait_for};

/// How long a guest may take for all that it does.
const LIMIT: Duration = Duration::from_secs(120);

/// A guest that runs its script.
pub struct Guest {
    app: App,
}

/// The lines of a script that connect to subsystem `nqn` at `port`, and wait for its disk, whose name is in `disk` then. A target that goes is
/// looked for again each second.
pub fn connect(port: u16, nqn: &str) -> String {
    format!(
        "printf 'transport=tcp,traddr=10.0.2.2,trsvcid={port},nqn={nqn},reconnect_delay=1' > /dev/nvme-fabrics
        disk=/dev/nvme0n1
        until [ -b $disk ]; do sleep 0.1; done\n"
    )
}

/// The name of the disk that is given by [`Guest::start_with_vhost`], as [`connect`] says it.
pub const VHOST_DISK: &str = "disk=/dev/vda\n";

impl Guest {
    /// Starts one that runs `commands` and ends, with its files in `dir`. `None` on machines for which there is none; elsewhere it is an error if
    /// it was not fetched.
    #[track_caller]
    pub fn start(dir: &Path, commands: &str) -> Option<Guest> {
        Guest::start_with(&[], dir, commands)
    }

    /// The same, with the disk of SPDK's vhost-user-blk controller at `socket`.
    #[track_caller]
    pub fn start_with_vhost(socket: &Path, dir: &Path, commands: &str) -> Option<Guest> {
        Guest::start_with(&[OsStr::new("--vhost"), socket.as_os_str()], dir, commands)
    }

    #[track_caller]
    fn start_with(options: &[&OsStr], dir: &Path, commands: &str) -> Option<Guest> {
        if !cfg!(target_arch = "x86_64") {
            println!("skipped: the guest is one of x86-64");
            return None;
        }
        let (folder, file) = (dir.join("guest"), dir.join("guest.sh"));
        fs::write(&file, commands).expect("the script can be written");
        let mut command = Command::new(script("guest"));
        let app = App::spawn(command.args(options).arg(folder).arg(file), &dir.join("guest.log"));
        Some(Guest { app: app.expect("scripts/guest can be run") })
    }

    /// What it has said so far.
    pub fn output(&self) -> String {
        self.app.output().replace('\r', "")
    }

    /// Waits until it has said a line that begins with `what`; the rest of the line.
    #[track_caller]
    pub fn said(&mut self, what: &str) -> String {
        wait_for(what, LIMIT, || {
            let output = self.output();
            assert!(said(&output, what).is_some() || self.app.ended().is_none(), "no {what}:\n{output}");
            said(&output, what)
        })
    }

    /// Waits until its script has ended, which has to have succeeded, and the machine is off; all that it has said.
    #[track_caller]
    pub fn ended(mut self) -> String {
        let status = self.app.wait(LIMIT);
        let output = self.output();
        assert!(status.success(), "{status}:\n{output}");
        assert_eq!(said(&output, "the script has ended: ").as_deref(), Some("0"), "{output}");
        output
    }
}

/// The rest of the last whole line that begins with `what`.
pub fn said(output: &str, what: &str) -> Option<String> {
    let whole = &output[..output.rfind('\n')?];
    whole.lines().rev().find_map(|line| line.strip_prefix(what)).map(str::to_owned)
}
