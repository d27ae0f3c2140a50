//! The SPDK in use, and whether the library of bdev_remap can be loaded into it. Nothing of either is run: the loader is asked what it
//! would do, as `ldd -r` does, which runs no constructors.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Finding;

/// The oldest SPDK that will do: year and month.
const OLDEST: (u32, u32) = (26, 1);
/// Folders of an SPDK tree with shared libraries, as scripts/lib.sh has them.
const LIBRARIES: [&str; 5] =
    ["build/lib", "build/libvfio-user/usr/local/lib", "dpdk/build/lib", "isa-l/.libs", "isa-l-crypto/.libs"];
/// Where the loader is.
const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
/// The library whose version tells releases of SPDK apart.
const BDEV_LIBRARY: &str = "libspdk_bdev.so";
const SET_UP: &str = "run scripts/setup.sh";
/// Bytes of a library at most, with all that is for debuggers.
const MAX_LIBRARY: u64 = 256 << 20;
/// What the loader says when something is missing.
const COMPLAINTS: [&str; 4] =
    ["undefined symbol", "=> not found", "cannot be preloaded", "error while loading shared libraries"];
/// Lines of the loader that are shown.
const SHOWN: usize = 3;

pub(super) fn look(spdk: Option<&Path>, library: Option<&Path>) -> Vec<Finding> {
    let spdk = spdk.map(Path::to_owned).or_else(usual_spdk);
    let mut findings = Vec::new();
    let tree = spdk.and_then(|dir| tree(&dir, &mut findings));
    if tree.is_none() && findings.is_empty() {
        findings.push(Finding::bad("SPDK", "nobody says where it is", "set SPDK_DIR, or HOME"));
    }
    let library = library.map(Path::to_owned).or_else(usual_library);
    let Some(library) = library.filter(|library| library.is_file()) else {
        let advice = format!("{SET_UP}, or set BDEV_REMAP_LIBRARIES, or give it by --library");
        findings.push(Finding::bad("library", "libbdev_remap.so is not found", advice));
        return findings;
    };
    findings.push(match tree {
        Some(tree) => fits(&library, &tree),
        None => Finding::ok("library", format!("{} is there", library.display())),
    });
    findings
}

/// The tree that the scripts use.
fn usual_spdk() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    set("SPDK_DIR").or_else(|| Some(cache()?.join("bdev-remap/spdk")))
}

/// The library that the scripts use; it is built beside this program.
fn usual_library() -> Option<PathBuf> {
    let folder = env::var_os("BDEV_REMAP_LIBRARIES").filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = folder.or_else(|| Some(env::current_exe().ok()?.parent()?.to_owned()))?;
    Some(folder.join("libbdev_remap.so"))
}

/// Whether there is an SPDK that can be used in `dir`, and where exactly.
fn tree(dir: &Path, findings: &mut Vec<Finding>) -> Option<PathBuf> {
    let shown = dir.display();
    let Ok(header) = fs::read_to_string(dir.join("include/spdk/version.h")) else {
        let sentence = format!("{shown} is no SPDK tree (include/spdk/version.h is missing)");
        findings.push(Finding::bad(
            "SPDK",
            sentence,
            format!("{SET_UP}, or set SPDK_DIR to a tree built --with-shared"),
        ));
        return None;
    };
    let Some((year, month)) = version(&header) else {
        let advice = format!("{SET_UP}, or set SPDK_DIR to another tree");
        findings.push(Finding::bad("SPDK", format!("{shown}: its version.h says no version"), advice));
        return None;
    };
    let is = format!("{shown} is SPDK {year}.{month:02}");
    if (year, month) < OLDEST {
        let (year, month) = OLDEST;
        findings.push(Finding::bad("SPDK", is, format!("{SET_UP}, or set SPDK_DIR to {year}.{month:02} or newer")));
        return None;
    }
    let needed = ["build/lib/libspdk_bdev.so", "build/bin/spdk_tgt"];
    if let Some(missing) = needed.iter().find(|path| !dir.join(path).exists()) {
        let advice = "run ./configure --with-shared && make there, or set SPDK_DIR to a tree that is built so";
        findings.push(Finding::bad("SPDK", format!("{is}, and {missing} is not built"), advice));
        return None;
    }
    findings.push(Finding::ok("SPDK", is));
    Some(dir.to_owned())
}

/// Year and month, as version.h defines them.
fn version(header: &str) -> Option<(u32, u32)> {
    let value = |name: &str| {
        header.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("#define") && words.next() == Some(name)).then(|| words.next()?.parse().ok())?
        })
    };
    Some((value("SPDK_VERSION_MAJOR")?, value("SPDK_VERSION_MINOR")?))
}

/// Whether the library was built for this SPDK, and the loader finds all that it needs.
fn fits(library: &Path, spdk: &Path) -> Finding {
    const ABOUT: &str = "library";
    let shown = library.display();
    let rebuild = || format!("{SET_UP} with SPDK_DIR={}", spdk.display());
    let file_name = |path: PathBuf| Some(path.file_name()?.to_str()?.to_owned());
    let there = fs::canonicalize(spdk.join("build/lib").join(BDEV_LIBRARY)).ok().and_then(file_name);
    let built = read(library).ok().and_then(|bytes| built_for(&bytes));
    match (&built, &there) {
        (None, _) => {
            let sentence = format!("{shown} does not say for which SPDK it was built: it is no library of bdev_remap");
            return Finding::bad(ABOUT, sentence, rebuild());
        }
        (Some(built), Some(there)) if built != there => {
            return Finding::bad(ABOUT, format!("{shown} was built for {built}, SPDK has {there}"), rebuild());
        }
        _ => {}
    }
    let Some(loader) = LOADERS.iter().map(Path::new).find(|loader| loader.exists()) else {
        let sentence = format!("{shown} was built for this SPDK; no loader was found that would say more");
        return Finding::warning(ABOUT, sentence, "try it: scripts/run.sh");
    };
    match unresolved(loader, library, spdk) {
        Err(error) => Finding::warning(
            ABOUT,
            format!("{shown}: {} cannot be run ({error})", loader.display()),
            "try it: scripts/run.sh",
        ),
        Ok(missing) if missing.is_empty() => Finding::ok(
            ABOUT,
            format!("{shown} was built for this SPDK ({}), and can be loaded", built.unwrap_or_default()),
        ),
        Ok(missing) => {
            let more = if missing.len() > SHOWN { ", and others" } else { "" };
            let what = missing[..missing.len().min(SHOWN)].join(", ");
            Finding::bad(ABOUT, format!("{shown} cannot be loaded: {what}{more}"), rebuild())
        }
    }
}

/// What is in a library, as far as it can be one.
fn read(library: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(library)?.take(MAX_LIBRARY).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The file name of SPDK's bdev library that the library was built for: it has it to compare when it is loaded.
fn built_for(library: &[u8]) -> Option<String> {
    let name = BDEV_LIBRARY.as_bytes();
    let digits = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let ends = library.windows(name.len()).enumerate().filter(|(_, window)| *window == name);
    ends.map(|(at, _)| &library[at + name.len()..]).find_map(|rest| {
        let mut len = 0;
        while rest.get(len) == Some(&b'.') && digits(&rest[len + 1..]) > 0 {
            len += 1 + digits(&rest[len + 1..]);
        }
        let version = std::str::from_utf8(&rest[..len]).ok()?;
        (len > 0).then(|| format!("{BDEV_LIBRARY}{version}"))
    })
}

/// What the loader does not find of what spdk_tgt needs with the library in it.
fn unresolved(loader: &Path, library: &Path, spdk: &Path) -> io::Result<Vec<String>> {
    let folders = LIBRARIES.map(|folder| spdk.join(folder).into_os_string()).join(&OsString::from(":"));
    let mut command = Command::new(loader);
    command.arg("--library-path").arg(folders).arg("--preload").arg(library).arg(spdk.join("build/bin/spdk_tgt"));
    // Has it look for every symbol, say which is missing, and run nothing (`--list` would not look for symbols).
    command.envs([("LD_TRACE_LOADED_OBJECTS", "1"), ("LD_WARN", "yes"), ("LD_BIND_NOW", "yes")]);
    let output = command.stdin(Stdio::null()).output()?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let complains = |line: &&str| COMPLAINTS.iter().any(|complaint| line.contains(complaint));
    let mut missing: Vec<_> =
        said.iter().flat_map(|text| text.lines()).filter(complains).map(|line| line.trim().to_owned()).collect();
    if missing.is_empty() && !output.status.success() {
        missing.push(format!("the loader ended with {}", output.status));
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_header_and_library() {
        let header = "#define SPDK_VERSION_MAJOR\t26\n/* x */\n#define SPDK_VERSION_MINOR\t1\n";
        assert_eq!(version(header), Some((26, 1)));
        assert_eq!(version("#define SPDK_VERSION_MAJOR x\n"), None);
        assert_eq!(built_for(b"xlibspdk_bdev.so.19.0.so its").as_deref(), Some("libspdk_bdev.so.19.0"));
        assert_eq!(built_for(b"libspdk_bdev.so.x libspdk_bdev.so.7").as_deref(), Some("libspdk_bdev.so.7"));
        assert_eq!(built_for(b"libspdk_bdev.so"), None);
        assert_eq!(built_for(b"libspdk_bdev.so."), None);
    }
}
