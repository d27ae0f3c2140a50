//! Map files of GNU ddrescue: which bytes of a device were read, which cannot be, and which were not tried. Written from its manual,
//! section "Mapfile structure".

use std::io::{self, Write};
use std::ops::Range;

/// What became of some blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They were not tried.
    Untried,
    /// They were read.
    Read,
    /// They cannot be read.
    Bad,
}

impl Fate {
    /// As a map file has it.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Fate::Untried => '?',
            Fate::Read => '+',
            Fate::Bad => '-',
        }
    }

    /// Which a map file means.
    #[must_use]
    pub fn of(letter: &str) -> Option<Fate> {
        [Fate::Untried, Fate::Read, Fate::Bad].into_iter().find(|fate| letter == fate.letter().encode_utf8(&mut [0; 4]))
    }
}

/// Writes a map of `total` blocks, of which those before `done` were tried, and of these the `bad` ones, ascending, cannot be read.
///
/// # Errors
/// Those of writing, and that of `bad`, which is the last of it: the map has no end then.
pub fn write<E: From<io::Error>>(
    out: &mut impl Write,
    about: &[&str],
    block_size: u32,
    bad: impl Iterator<Item = Result<Range<u64>, E>>,
    done: u64,
    total: u64,
) -> Result<(), E> {
    writeln!(out, "# Mapfile. Created by remapctl {}", env!("CARGO_PKG_VERSION"))?;
    for line in about {
        writeln!(out, "# {line}")?;
    }
    let bytes = |block: u64| block.saturating_mul(block_size.into());
    let status = if done < total { Fate::Untried } else { Fate::Read };
    writeln!(out, "# current_pos  current_status  current_pass")?;
    writeln!(out, "{:#014x}     {}               1", bytes(done), status.letter())?;
    writeln!(out, "#      pos        size  status")?;
    let mut line = |blocks: Range<u64>, fate: Fate| -> io::Result<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        let (at, size) = (bytes(blocks.start), bytes(blocks.end - blocks.start));
        writeln!(out, "{at:#014x}  {size:#014x}  {}", fate.letter())
    };
    let mut next = 0;
    // Neighbours that differ in nothing that a map tells are one line.
    let mut open = 0..0;
    for blocks in bad {
        let blocks = blocks?;
        if blocks.start == open.end {
            open.end = blocks.end;
            continue;
        }
        line(next..open.start, Fate::Read)?;
        line(open.clone(), Fate::Bad)?;
        next = open.end;
        open = blocks;
    }
    line(next..open.start, Fate::Read)?;
    line(open.clone(), Fate::Bad)?;
    line(open.end..done, Fate::Read)?;
    Ok(line(done..total, Fate::Untried)?)
}
