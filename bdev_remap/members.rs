//! The members of a set, base and spare: opening and claiming them, whether they fit, what a spare says of itself. App thread.

use std::{sync::OnceLock, time::Duration};

use remap_core::format::Superblock;
use spdk::{BdevInfo, Desc, Errno, Event, IoKind, rpc::Error, thread};

use crate::{
    disk::Disk,
    module::MODULE,
    runtime::Threads,
    set::{Member, Tag},
    status::to_rpc,
};

impl Member {
    /// The parameter that names it.
    pub fn parameter(self) -> &'static str {
        match self {
            Member::Base => "base_bdev",
            Member::Spare => "spare_bdev",
        }
    }
}

/// Who is told of what happens to the members: of which set, which member, the name of its bdev, what.
pub type Listener = fn(Tag, Member, &str, Event);

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// From now on `listener` is told. The first one stays.
pub fn listen(listener: Listener) {
    let _ = LISTENER.set(listener);
}

/// Tells what has happened to a member.
pub fn tell(tag: Tag, member: Member, bdev: &str, event: Event) {
    if let Some(listener) = LISTENER.get() {
        listener(tag, member, bdev, event);
    }
}

/// Opens a member of the set that `tag` means.
pub fn open(member: Member, bdev: &str, tag: Tag) -> Result<Desc, Error> {
    let name = bdev.to_owned();
    let opened = Desc::open(bdev, move |event| {
        tell(tag, member, &name, event);
    });
    opened.map_err(|errno| cannot_open(member, bdev, errno))
}

/// Opens a bdev for a look at it.
pub fn look_at(member: Member, bdev: &str) -> Result<Desc, Error> {
    Desc::open(bdev, |_| ()).map_err(|errno| cannot_open(member, bdev, errno))
}

fn cannot_open(member: Member, bdev: &str, errno: Errno) -> Error {
    let parameter = member.parameter();
    match errno {
        Errno::NODEV => Error::new(errno, format!("{parameter}: there is no bdev called {bdev}")),
        _ => Error::new(errno, format!("{parameter}: {bdev} cannot be opened: {errno}")),
    }
}

/// Claims a member for this module.
pub fn claim(member: Member, desc: &Desc) -> Result<(), Error> {
    desc.claim(&MODULE).map_err(|errno| {
        let name = desc.info().name;
        let parameter = member.parameter();
        Error::new(errno, format!("{parameter}: {name} is in use or claimed by another: free it first ({errno})"))
    })
}

/// How long another module may look at a bdev that has appeared.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// As [`claim`], for who looks at a bdev that has appeared: other modules do that at the same time, and some have it open for
/// writing meanwhile. They cannot be waited for, as that would be to wait for oneself.
pub async fn claim_in_the_end(member: Member, desc: &Desc) -> Result<(), Error> {
    let end = thread::now() + PATIENCE;
    loop {
        match claim(member, desc) {
            Err(error) if error.code == Errno::PERM.negative() && thread::now() < end => spdk::sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
}

/// The superblock that counts on this spare, if there is one.
pub async fn identify(desc: &Desc, info: &BdevInfo) -> Result<Option<Superblock>, Error> {
    let spare = Disk::new(desc, info).map_err(|errno| cannot_open(Member::Spare, &info.name, errno))?;
    let found = remap_core::engine::identify(spare, Threads::default()).await;
    found.map_err(|error| to_rpc(format_args!("spare_bdev {}", info.name), &error))
}

/// Whether these two can be the members of a set.
pub fn check(base: &BdevInfo, spare: &Desc) -> Result<(), Error> {
    let flushes = spare.supports(IoKind::Flush);
    let spare = &spare.info();
    if base.name == spare.name {
        return Err(Error::invalid(
            "spare_bdev",
            format!("{} is the base; the spare must be another bdev", spare.name),
        ));
    }
    for (parameter, info) in [("base_bdev", base), ("spare_bdev", spare)] {
        let BdevInfo { name, .. } = info;
        let unfit = if info.protected {
            "has protection information (DIF), which this version does not remap"
        } else if info.md_interleaved {
            "has metadata between its blocks' data, which this version does not remap"
        } else if info.zoned {
            "is a zoned device, whose blocks cannot be remapped"
        } else if info.write_unit > 1 {
            "must be written in units of several blocks, which this version does not remap"
        } else {
            continue;
        };
        return Err(Error::invalid(parameter, format!("{name} {unfit}")));
    }
    if base.block_size != spare.block_size {
        let (a, b) = (base.block_size, spare.block_size);
        let why = format!("{} has blocks of {b} bytes, but the base {} has blocks of {a}", spare.name, base.name);
        return Err(Error::invalid("spare_bdev", why));
    }
    if base.md_size != spare.md_size {
        let (a, b) = (base.md_size, spare.md_size);
        let why = format!("{} has {b} bytes of metadata a block, but the base {} has {a}", spare.name, base.name);
        return Err(Error::invalid("spare_bdev", why));
    }
    if spare.write_cache && !flushes {
        let why = "has a volatile cache but takes no FLUSH, so that nothing on it could be made durable";
        return Err(Error::invalid("spare_bdev", format!("{} {why}", spare.name)));
    }
    Ok(())
}
