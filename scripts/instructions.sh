#!/usr/bin/env bash
# Usage: scripts/instructions.sh [--help] [--update]
#
# Counts the instructions of lookups, routes and rescues (remap-sim/src/bin/instructions.rs) with valgrind, and compares them with
# remap-sim/instructions.txt. Fails if any takes over 2 % more than there; also if it takes over 2 % less, so that what was won is
# written down. The counts do not depend on how fast or busy the machine is. They do depend on the compiler, on the C library (which
# copies the blocks of a rescue), and a little on valgrind: where these are others than the file says, they are shown and not judged.
# Run again, the same program gives the same counts: neither where it lies in memory nor the seeds of hash maps show in them.
#
#   --update   write the file anew, with the counts as they are now

# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"
update=false
for arg in "$@"; do
	case "$arg" in
	-h | --help) usage; exit 0 ;;
	--update) update=true ;;
	*) die "unknown argument $arg (see --help)" ;;
	esac
done
for program in cargo rustc valgrind; do
	command -v "$program" >/dev/null || die "no $program in PATH: scripts/setup.sh --dev installs valgrind; Rust comes with rustup"
done

FILE=$TOP/remap-sim/instructions.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# made_with: all that the counts depend on, beside the code.
made_with() {
	local vectors="no AVX2"
	! grep -qw avx2 /proc/cpuinfo || vectors=AVX2
	printf '%s, %s, %s, %s, %s\n' "$(rustc --version)" "$(rustc -vV | sed -n 's/^host: //p')" "$(getconf GNU_LIBC_VERSION)" \
		"$(valgrind --version)" "$vectors"
}

# count: a line for each scenario: instructions an operation, a tab, its name.
count() {
	local functions=(lookups routes rescues) dumps=() function operations scenario total number=0
	for function in "${functions[@]}"; do
		dumps+=("--dump-after=instructions::counted_$function")
	done
	# A single pattern: of several, valgrind heeds but the first.
	valgrind --quiet --tool=callgrind --collect-atstart=no '--toggle-collect=instructions::counted_*' "${dumps[@]}" \
		--callgrind-out-file="$work/counts" "$BUILD_DIR/quick/instructions" >"$work/scenarios" 2>"$work/errors" ||
		die "valgrind, or what it runs, has failed: $(cat "$work/errors" "$work/scenarios")"
	while IFS=$'\t' read -r operations scenario; do
		number=$((number + 1))
		total=$(sed -n 's/^totals: //p' "$work/counts.$number") || die "valgrind has not counted: $scenario"
		[ "${total:-0}" -gt 0 ] || die "valgrind has counted nothing for: $scenario"
		awk -v total="$total" -v operations="$operations" -v name="$scenario" 'BEGIN { printf "%.1f\t%s\n", total / operations, name }'
	done <"$work/scenarios"
	[ "$number" -gt 0 ] || die "$BUILD_DIR/quick/instructions has named no scenario"
	[ ! -e "$work/counts.$((number + 1))" ] || die "valgrind has counted more calls than there are scenarios"
}

# judge FILE COUNTS: the sentences about what differs; fails if there is any.
judge() {
	awk -F '\t' '
		/^#/ || NF < 2 { next }
		NR == FNR { before[$2] = $1; next }
		!($2 in before) { print "error: " $2 " is new: scripts/instructions.sh --update writes it down"; wrong = 1; next }
		{
			old = before[$2]
			delete before[$2]
			change = sprintf("%s takes %s instructions, %s before (%+.1f %%)", $2, $1, old, ($1 / old - 1) * 100)
			if ($1 > old * 1.02) { print "error: " change ": make it as fast again, or accept it with scripts/instructions.sh --update"; wrong = 1 }
			if ($1 < old * 0.98) { print "error: " change ": keep what was won with scripts/instructions.sh --update"; wrong = 1 }
		}
		END {
			for (name in before) { print "error: " name " is not counted any more: scripts/instructions.sh --update"; wrong = 1 }
			exit wrong
		}' "$1" "$2"
}

cd "$TOP"
# What else would change the code.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS CARGO_BUILD_TARGET
cargo build --quiet --locked --profile quick --target-dir "$BUILD_DIR" -p remap-sim --bin instructions
count >"$work/now"
cat "$work/now"
if $update; then
	{
		echo "# Instructions an operation, for scripts/instructions.sh, which writes this file with --update."
		echo "# Made with: $(made_with)"
		cat "$work/now"
	} >"$FILE"
	say "written to remap-sim/instructions.txt"
	exit 0
fi
[ -f "$FILE" ] || die "no remap-sim/instructions.txt: scripts/instructions.sh --update writes it"
before=$(sed -n 's/^# Made with: //p' "$FILE")
if [ "$before" != "$(made_with)" ]; then
	say "NOT JUDGED: remap-sim/instructions.txt was made with other tools, so that its counts cannot be compared with these."
	say "  the file: $before"
	say "  here:     $(made_with)"
	exit 0
fi
judge "$FILE" "$work/now" >&2
say "as in remap-sim/instructions.txt, give or take 2 %"
