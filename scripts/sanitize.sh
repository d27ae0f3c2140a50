# shellcheck shell=bash
# Sourced by asan.sh and tsan.sh, after lib.sh: builds both libraries under a sanitizer of nightly Rust, and runs end-to-end tests
# with them.

cargo +nightly --version >/dev/null 2>&1 || die "no nightly Rust: rustup toolchain install nightly"
TRIPLE=$(rustc -vV | awk '/^host:/ {print $2}')
REPORTS=$(mktemp -d)
trap 'rm -rf "$REPORTS"' EXIT

# build_sanitized SANITIZER RUSTFLAGS [ARGUMENTS...]: builds with these flags, and arguments of cargo's.
build_sanitized() {
	local sanitizer=$1 flags=$2
	shift 2
	# A target of its own name, so that build scripts and macros are built without the sanitizer.
	RUSTFLAGS="-Zsanitizer=$sanitizer $flags" cargo +nightly build --locked --release "$@" --target "$TRIPLE" \
		--target-dir "$BUILD_DIR/$sanitizer" -p bdev_remap -p bdev_fault
}

# test_sanitized SANITIZER RUN [TEST...]: runs the tests of these files (all, if none is named). They are built as ever; the target
# that they start gets their environment, and so what RUN says: variables, and a command that runs another one. Any file in REPORTS
# is a failure. What is linked in is not built with a sanitizer.
test_sanitized() {
	local sanitizer=$1 run=$2 which=() test status=0 variable
	shift 2
	for test in "$@"; do
		[ -f "$TOP/tests/tests/$test.rs" ] || die "there is no tests/tests/$test.rs"
		which+=("$test::")
	done
	variable=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$TRIPLE")_RUNNER
	env "$variable=env BDEV_REMAP_LIBRARIES=$BUILD_DIR/$sanitizer/$TRIPLE/release $run" \
		cargo test --locked -p e2e --test all -- --skip linked_target "${which[@]}" || status=$?
	if compgen -G "$REPORTS/*" >/dev/null; then
		cat "$REPORTS"/*
		die "the $sanitizer sanitizer has found something"
	fi
	say "the $sanitizer sanitizer has found nothing"
	exit "$status"
}
