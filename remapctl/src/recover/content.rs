//! What hosts would read from the Remap bdev, window by window.

use std::io;
use std::ops::Range;
use std::rc::Rc;

use remap_core::engine::SetPreview;
use remap_core::{BaseLba, Mapping, SpareBlock};
use rustix::fs::SeekFrom;

use crate::buffer::Buffer;
use crate::disk::Disk;
use crate::error::Error;

/// Base and spare of a set.
pub(super) struct Content<'a> {
    set: &'a SetPreview,
    base: Disk,
    spare: Rc<Disk>,
    /// Whether nothing has to be done where the base has holes.
    skips_holes: bool,
    /// Before this byte the base has a hole, or nobody has looked.
    next_data: u64,
}

/// Whether to go on.
type Check<'a> = &'a dyn Fn() -> Result<(), Error>;

impl<'a> Content<'a> {
    pub(super) fn new(set: &'a SetPreview, base: Disk, spare: &Rc<Disk>, skips_holes: bool) -> Content<'a> {
        let skips_holes = skips_holes && !base.is_block_device();
        Content { set, base, spare: Rc::clone(spare), skips_holes, next_data: 0 }
    }

    pub(super) fn block_size(&self) -> u32 {
        self.set.superblock.layout.block_size
    }

    /// Fills `bytes` with the blocks of `range`; those that cannot be read are zeros, and the answer. `None` if all of it is a hole, and
    /// nothing was read.
    ///
    /// # Errors
    /// [`Error::Gone`]; [`Error::Memory`]; what `check` says.
    pub(super) fn read(
        &mut self,
        range: Range<u64>,
        bytes: &mut [u8],
        check: Check<'_>,
    ) -> Result<Option<Vec<u64>>, Error> {
        let set = self.set;
        let moved: Vec<(u64, Mapping)> = set
            .mappings
            .range(BaseLba(range.start)..BaseLba(range.end))
            .filter(|(_, mapping)| mapping.spare().is_some())
            .map(|(lba, mapping)| (lba.0, mapping))
            .collect();
        let mut bad = match self.is_hole(&range) {
            true if moved.is_empty() => return Ok(None),
            true => {
                bytes.fill(0);
                Vec::new()
            }
            false => self.read_base(&range, &moved, bytes, check)?,
        };
        self.read_spare(&range, &moved, bytes, &mut bad, check)?;
        bad.sort_unstable();
        Ok(Some(bad))
    }

    fn is_hole(&mut self, range: &Range<u64>) -> bool {
        let size = u64::from(self.block_size());
        let (start, end) = (range.start * size, range.end * size);
        if self.skips_holes && self.next_data < end {
            self.next_data = match rustix::fs::seek(self.base.file(), SeekFrom::Data(start)) {
                Ok(at) => at,
                // As long as it is now: who asks for more of it has to be told.
                Err(rustix::io::Errno::NXIO) => self.base.file().metadata().map_or(start, |metadata| metadata.len()),
                // It cannot say: all of it is read.
                Err(_) => start,
            };
        }
        self.skips_holes && self.next_data >= end
    }

    /// Reads what is on the base. Of a device, blocks that are on the spare are not asked for: they are bad, and it would try long. A
    /// file is read at once.
    fn read_base(
        &self,
        range: &Range<u64>,
        moved: &[(u64, Mapping)],
        bytes: &mut [u8],
        check: Check<'_>,
    ) -> Result<Vec<u64>, Error> {
        let (size, mut bad) = (self.block_size() as usize, Vec::new());
        if !self.base.is_block_device() && self.base.read(range.start * size as u64, bytes).is_ok() {
            return Ok(bad);
        }
        bytes.fill(0);
        let ends = moved.iter().map(|(lba, _)| *lba).chain([range.end]);
        let mut first = range.start;
        for end in ends {
            if first < end {
                let at = (first - range.start) as usize * size..(end - range.start) as usize * size;
                let failed = read_blocks(&self.base, first, &mut bytes[at], size, check)?;
                bad.extend(failed.into_iter().map(|block| first + block));
            }
            first = end + 1;
        }
        Ok(bad)
    }

    /// Puts what is on the spare in its places. Blocks that follow one another there are read together.
    fn read_spare(
        &self,
        range: &Range<u64>,
        moved: &[(u64, Mapping)],
        bytes: &mut [u8],
        bad: &mut Vec<u64>,
        check: Check<'_>,
    ) -> Result<(), Error> {
        let (layout, size) = (&self.set.superblock.layout, self.block_size() as usize);
        let place = |lba: u64| (lba - range.start) as usize * size..(lba - range.start + 1) as usize * size;
        let held: Vec<(u64, SpareBlock)> = moved.iter().filter_map(|(lba, to)| Some((*lba, to.spare()?))).collect();
        for run in held.chunk_by(|a, b| a.1.plus(1) == Some(b.1)) {
            let mut read = Buffer::zeroed(run.len() * size).map_err(|_| Error::Memory)?;
            let failed = read_blocks(&self.spare, layout.data(run[0].1).0, read.as_mut(), size, check)?;
            for ((lba, _), data) in run.iter().zip(read.as_ref().chunks(size)) {
                bytes[place(*lba)].copy_from_slice(data);
            }
            bad.extend(failed.into_iter().filter_map(|block| run.get(block as usize)).map(|(lba, _)| *lba));
        }
        for (lba, _) in moved.iter().filter(|(_, mapping)| matches!(mapping, Mapping::Lost(_))) {
            bytes[place(*lba)].fill(0);
            bad.push(*lba);
        }
        bad.sort_unstable();
        bad.dedup();
        Ok(())
    }
}

/// Fills `bytes` with the blocks from `first` on. The answer is which of them cannot be read, counted from there: they are zeros.
fn read_blocks(disk: &Disk, first: u64, bytes: &mut [u8], size: usize, check: Check<'_>) -> Result<Vec<u64>, Error> {
    if disk.read(first * size as u64, bytes).is_ok() {
        return Ok(Vec::new());
    }
    let mut bad = Vec::new();
    for (block, bytes) in (0..).zip(bytes.chunks_mut(size)) {
        check()?;
        let lba = first + block;
        match disk.read(lba * size as u64, bytes) {
            Ok(()) => {}
            Err(error) if is_unreadable(&error) => {
                bytes.fill(0);
                bad.push(block);
            }
            Err(source) => return Err(Error::Gone { path: disk.path().to_owned(), lba, source }),
        }
    }
    Ok(bad)
}

/// Whether an error is about the block, and not about all of the device.
fn is_unreadable(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::ENODATA | libc::EREMOTEIO | libc::EILSEQ))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::path::Path;

    use super::*;
    use crate::spare::{Base, Spare};

    /// A spare of the golden images, and a base of 300 blocks, in a folder of their own.
    fn files(folder: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
        let (base, spare) = (folder.join("base"), folder.join("spare"));
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../remap-core/tests/golden/used.img.gz");
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(File::open(golden).unwrap()).read_to_end(&mut bytes).unwrap();
        std::fs::write(&spare, bytes).unwrap();
        std::fs::write(&base, vec![7; 300 * 4096]).unwrap();
        (base, spare)
    }

    /// What becomes of reading blocks 0 to 300 when `vanish` was done to base and spare behind our back.
    fn read_after(vanish: impl Fn(&Path, &Path)) -> Result<Vec<u64>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let (base, spare) = files(folder.path());
        let opened = Spare::open(&spare, None).unwrap();
        let set = opened.set(Base { blocks: Some(300), ..Base::default() }, None).unwrap();
        let mut content = Content::new(&set, Disk::open(&base).unwrap(), opened.disk(), true);
        vanish(&base, &spare);
        Ok(content.read(0..300, &mut vec![0; 300 * 4096], &|| Ok(()))?.unwrap())
    }

    #[test]
    fn a_base_or_spare_that_vanishes_is_not_taken_for_bad_blocks() {
        let truncate = |path: &Path| File::options().write(true).open(path).unwrap().set_len(4096).unwrap();
        assert_eq!(read_after(|_, _| ()).unwrap(), [0; 0]);
        assert!(
            matches!(read_after(|base, _| truncate(base)), Err(Error::Gone { lba: 4, .. })),
            "block 1 to 3 are on the spare"
        );
        assert!(matches!(read_after(|_, spare| truncate(spare)), Err(Error::Gone { lba: 131, .. })));
    }

    #[test]
    fn a_spare_that_vanishes_while_it_is_looked_at_is_no_verdict() {
        let folder = tempfile::tempdir().unwrap();
        let (_, spare) = files(folder.path());
        let opened = Spare::open(&spare, None).unwrap();
        File::options().write(true).open(&spare).unwrap().set_len(4096).unwrap();
        assert!(matches!(opened.inspect(), Err(remap_core::Error::Io { .. })));
        assert!(matches!(opened.set(Base::default(), None), Err(Error::Spare { .. })));
    }
}
