//! `map`: a picture of the whole device: where blocks are remapped, pending and lost, how the spare is used, and what its metadata know
//! of the past.
//!
//! [`picture::Picture`] is made of extents from anywhere, one after the other; [`svg::write`] and [`html::write`] draw it.

pub mod about;
pub mod grid;
pub mod html;
pub mod live;
pub mod packed;
pub mod palette;
pub mod picture;
pub mod svg;
pub(crate) mod words;

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use remap_core::StatedEnd;

use self::about::About;
use self::picture::Picture;
use crate::cli::{MapArgs, MapFormat};
use crate::disk::Identity;
use crate::error::{Error, Verdict};
use crate::list;
use crate::spare::{Base, Spare};

/// Who may read a picture: as far as the umask lets them, everybody.
const MODE: u32 = 0o666;

/// Runs the command.
///
/// # Errors
/// Those of opening the spare and its set, or of asking the target; [`Error::NeitherSpareNorSet`]; [`Error::Stdout`], [`Error::There`],
/// [`Error::Folder`], [`Error::Input`].
pub fn run(args: &MapArgs, out: &mut impl Write) -> Result<Verdict, Error> {
    let source = &args.source;
    let (picture, spare) = if let Some((client, set)) = list::online(source)? {
        (live::picture(&client, &set)?, None)
    } else {
        let spare = Spare::open(&source.spare, source.size.block_size)?;
        (picture(&spare, source.at.at)?, Some(spare.disk().identity()))
    };
    let format = args.format.unwrap_or_else(|| format_of(args.output.as_deref()));
    match &args.output {
        None => write(&picture, format, out)?,
        Some(path) => into_file(&picture, format, path, args.force, spare)?,
    }
    out.flush()?;
    Ok(Verdict::Sound)
}

fn picture(spare: &Spare, at: Option<StatedEnd>) -> Result<Picture, Error> {
    let found = spare.inspect().map_err(|why| Error::of_spare(spare.path(), why))?;
    let set = spare.set(Base::default(), at)?;
    let mut picture = Picture::new(About::of(spare, &set, &found));
    list::extents(&set).try_for_each(|extent| picture.add(&extent))?;
    set.bad.iter().for_each(|block| picture.add_bad(set.superblock.layout.data(*block)));
    Ok(picture)
}

/// What the name of the output says.
fn format_of(output: Option<&Path>) -> MapFormat {
    match output.and_then(Path::extension).and_then(OsStr::to_str) {
        Some(ending) if ending.eq_ignore_ascii_case("svg") => MapFormat::Svg,
        _ => MapFormat::Html,
    }
}

fn write(picture: &Picture, format: MapFormat, out: &mut impl Write) -> Result<(), Error> {
    match format {
        MapFormat::Svg => svg::write(picture, out),
        MapFormat::Html => html::write(picture, out),
    }
}

/// The file is there when it is whole, and not before.
fn into_file(
    picture: &Picture,
    format: MapFormat,
    path: &Path,
    force: bool,
    spare: Option<Identity>,
) -> Result<(), Error> {
    match fs::metadata(path) {
        Ok(there) if spare.is_some() && Identity::of(&there) == spare => {
            return Err(Error::Input { path: path.to_owned() });
        }
        Ok(there) if !force || !there.is_file() => return Err(Error::There { path: path.to_owned() }),
        _ => (),
    }
    let failed = |source| Error::Folder { path: path.to_owned(), source };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    let file = builder.permissions(Permissions::from_mode(MODE)).tempfile_in(folder).map_err(failed)?;
    let mut out = BufWriter::new(file);
    write(picture, format, &mut out).map_err(|error| match error {
        Error::Stdout(source) => failed(source),
        error => error,
    })?;
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    let kept = if force { file.persist(path) } else { file.persist_noclobber(path) };
    kept.map(|_| ()).map_err(|error| match error.error.kind() {
        // As a symbolic link to nothing.
        ErrorKind::AlreadyExists => Error::There { path: path.to_owned() },
        _ => failed(error.error),
    })
}
