//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use remap_core::{Epoch, ListedState, Sequence, StatedEnd};
use uuid::Uuid;

use crate::rpc;

/// What is said at the end of every help.
const EXIT_CODES: &str = "Exit codes: 0 all is well; 1 it can be used, but something is damaged or unreadable; 2 it would be refused; \
8 it could not be done; 16 the command line is wrong; 130 interrupted.";

/// Looks at the spare of a Remap bdev, checks it, and gets the data out, without SPDK.
///
/// A spare and a base are files or block devices, and are only read, other than by `repair --yes`. A set that is in use can be looked at,
/// with a warning.
/// `list NAME`, `map NAME`, `doctor`, `serve` and `watch` ask a running target by its RPC socket.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Options {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what is on a spare: superblocks, log areas, pages, both copies side by side, and what is damaged since which epoch
    Inspect(InspectArgs),
    /// Say whether bdev_remap_create would load the set, and why not: in the same words, with nothing written
    Check(CheckArgs),
    /// List the blocks that are remapped, pending or lost: of a spare, or of a Remap bdev of the target that runs
    List(ListArgs),
    /// Draw the whole device: where blocks are remapped, pending or lost, how the spare is used, and what its metadata know of the past
    Map(MapArgs),
    /// Write the content of the Remap bdev into a file, without SPDK: the base, with the remapped blocks in their places
    Recover(RecoverArgs),
    /// Write bad copies of the metadata anew from good ones, or mend a set that is refused to a state that is chosen by --at, and back again;
    /// shows what would be written unless --yes is given
    Repair(RepairArgs),
    /// Look whether this machine can run a target with bdev_remap, and how those are that run; say what to do
    Doctor(DoctorArgs),
    /// Serve how the sets of the target that runs stand, over HTTP: /metrics for Prometheus, / for people. It only looks
    Serve(ServeArgs),
    /// Watch the sets of the target that runs on this terminal, with keys to save, re-arm, and begin and cancel a scrub
    Watch(WatchArgs),
    /// Write the completions of a shell to stdout
    Completions(CompletionsArgs),
    /// Write the manual pages into a folder
    Man(ManArgs),
}

/// A spare to look at.
#[derive(Args, Clone, Debug)]
pub struct SpareArgs {
    /// The spare: a block device, or a file
    #[arg(value_name = "SPARE")]
    pub spare: PathBuf,
    /// Its block size.
    #[command(flatten)]
    pub size: SizeArgs,
}

/// The block size.
#[derive(Args, Clone, Debug)]
pub struct SizeArgs {
    /// Bytes a block; needed only where no superblock can be found, and 4096 is wrong
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(512..=65536))]
    pub block_size: Option<u32>,
}

/// A running target.
#[derive(Args, Clone, Debug)]
pub struct TargetArgs {
    /// The RPC socket of the SPDK target that runs
    #[arg(short, long, value_name = "PATH", default_value = rpc::DEFAULT_SOCKET)]
    pub socket: PathBuf,
}

/// The arguments of `inspect`.
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct InspectArgs {
    /// The spare.
    #[command(flatten)]
    pub spare: SpareArgs,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `check`.
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct CheckArgs {
    /// The spare.
    #[command(flatten)]
    pub spare: SpareArgs,
    /// The base of the set: its size, its UUID where the kernel knows it, and whether every mapping is on it
    #[arg(long)]
    pub base: Option<PathBuf>,
    /// The UUID that the bdev of the base has in SPDK
    #[arg(long, value_name = "UUID")]
    pub base_uuid: Option<Uuid>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// A spare, or a Remap bdev of a running target.
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// The spare: a block device, or a file. If there is none of this name, a Remap bdev of the target that runs
    #[arg(value_name = "SPARE or NAME")]
    pub spare: PathBuf,
    /// Its block size.
    #[command(flatten)]
    pub size: SizeArgs,
    /// The target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Which state of the log.
    #[command(flatten)]
    pub at: AtArgs,
}

/// The arguments of `list`.
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct ListArgs {
    /// What is looked at.
    #[command(flatten)]
    pub source: SourceArgs,
    /// How: for people, for programs, or as other tools write and read it
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: Format,
    /// Only blocks in these states
    #[arg(long = "state", value_name = "STATE", value_delimiter = ',')]
    pub states: Vec<State>,
}

/// A state of the log that is not in force.
#[derive(Args, Clone, Debug)]
pub struct AtArgs {
    /// Take this state of the log, one of those that `inspect` lists for a set that is refused; what came after it is not seen
    #[arg(long, value_name = "EPOCH:SEQUENCE", value_parser = stated_end)]
    pub at: Option<StatedEnd>,
}

fn stated_end(text: &str) -> Result<StatedEnd, String> {
    let parsed = text.split_once(':').and_then(|(epoch, sequence)| {
        Some(StatedEnd { epoch: Epoch::new(epoch.parse().ok()?)?, sequence: Sequence::new(sequence.parse().ok()?)? })
    });
    parsed.ok_or_else(|| "it is an epoch and a sequence number, such as 7:123".to_owned())
}

/// How extents are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// An object with the identity of the set and its extents; bdev_remap_import reads it
    Json,
    /// A line an extent: lba, num_blocks, spare_lba, state
    Csv,
    /// As `badblocks -o` writes it: a block a line, in blocks of the base
    Badblocks,
    /// A map file of ddrescue, in bytes: the listed blocks are bad sectors, all others are finished
    Ddrescue,
}

/// What a listed block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum State {
    /// It lives on the spare
    Remapped,
    /// It is known unreadable on the base, and was not rewritten
    Pending,
    /// Its data could not be read when it was copied to the spare
    Lost,
}

impl State {
    /// As remap-core has it.
    #[must_use]
    pub fn is(self, state: ListedState) -> bool {
        matches!(
            (self, state),
            (State::Remapped, ListedState::Remapped)
                | (State::Pending, ListedState::Pending)
                | (State::Lost, ListedState::Lost)
        )
    }
}

/// The arguments of `map`.
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct MapArgs {
    /// What is looked at.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Where the picture goes: a new file [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How it is drawn [default: what the name of the output says, else html]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<MapFormat>,
    /// Replace the output if it is there
    #[arg(long)]
    pub force: bool,
}

/// How a picture is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MapFormat {
    /// A page for a browser, to zoom in down to single blocks; one file that needs nothing else
    Html,
    /// An image, for documents and mails
    Svg,
}

/// The arguments of `recover`.
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct RecoverArgs {
    /// The base of the set: a block device, or a file; it is only read
    #[arg(long)]
    pub base: PathBuf,
    /// The spare of the set: a block device, or a file; it is only read
    #[arg(long)]
    pub spare: PathBuf,
    /// Where the content goes: a new file, with holes where there are only zeros; or a block device, with --force
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,
    /// What was done and what cannot be read, as a map file of ddrescue; with it the same command goes on where it was stopped
    /// [default: FILE.map]
    #[arg(long, value_name = "FILE")]
    pub map: Option<PathBuf>,
    /// Try those blocks again that could not be read, when all others are done
    #[arg(long)]
    pub retry: bool,
    /// Overwrite the output, which is a block device
    #[arg(long)]
    pub force: bool,
    /// The UUID that the bdev of the base has in SPDK; refused if the set is of another base
    #[arg(long, value_name = "UUID")]
    pub base_uuid: Option<Uuid>,
    /// Its block size.
    #[command(flatten)]
    pub size: SizeArgs,
    /// Which state of the log.
    #[command(flatten)]
    pub at: AtArgs,
}

/// The arguments of `repair`.
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct RepairArgs {
    /// The spare.
    #[command(flatten)]
    pub spare: SpareArgs,
    /// Mend a set that is refused to this state of its log, one of those that are listed without it; what was committed after it is given up
    #[arg(long, value_name = "EPOCH:SEQUENCE", value_parser = stated_end, conflicts_with = "undo_from")]
    pub at: Option<StatedEnd>,
    /// Write it. Refused while any process has the spare open
    #[arg(long)]
    pub yes: bool,
    /// Where is kept what is written over; a new file [default: the name of SPARE and .undo, in the current folder]
    #[arg(long, value_name = "FILE")]
    pub undo: Option<PathBuf>,
    /// Put back what a repair has written over, from the file that it kept; shows only how much unless --yes is given
    #[arg(long, value_name = "FILE", conflicts_with_all = ["undo", "json"])]
    pub undo_from: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `doctor`.
#[derive(Args, Debug)]
#[command(after_help = "Exit codes: by the worst that was found: 0 ok, 1 warning, 2 bad.")]
pub struct DoctorArgs {
    /// The SPDK tree [default: SPDK_DIR, else the one that scripts/setup.sh has built]
    #[arg(long, value_name = "DIR")]
    pub spdk: Option<PathBuf>,
    /// The library of bdev_remap [default: libbdev_remap.so in BDEV_REMAP_LIBRARIES, else beside this program]
    #[arg(long, value_name = "FILE")]
    pub library: Option<PathBuf>,
    /// The RPC socket of a target; may be given more than once [default: those that are found]
    #[arg(long = "socket", value_name = "SOCKET")]
    pub sockets: Vec<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `serve`.
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct ServeArgs {
    /// The target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// Where it listens; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9556")]
    pub listen: SocketAddr,
    /// Listen at an address that others can reach, although everybody who does may look
    #[arg(long)]
    pub insecure_listen: bool,
}

/// The arguments of `watch`.
#[derive(Args, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct WatchArgs {
    /// The target.
    #[command(flatten)]
    pub target: TargetArgs,
    /// How often the target is asked
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    pub interval: Duration,
}

/// At most ten times a second, as the target has other things to do.
fn interval(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let allowed = Duration::from_millis(100)..=Duration::from_secs(3600);
    allowed.contains(&time).then_some(time).ok_or_else(|| "it is from 100ms to 1h".to_owned())
}

/// The arguments of `completions`.
#[derive(Args, Debug)]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: Shell,
}

/// The arguments of `man`.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// The folder; it is made if it is not there
    pub folder: PathBuf,
}
