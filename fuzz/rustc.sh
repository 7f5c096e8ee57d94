#!/bin/sh
# The compiler of xbond's own crates for `cargo xtask fuzz` (RUSTC_WORKSPACE_WRAPPER): with counters of covered edges, and of
# compared values, that libFuzzer reads. Build scripts and macros run at build time, without it.
case " $* " in
    *" build_script_"* | *" --crate-type proc-macro "* | *" --target bpf"*) exec "$@" ;;
esac
exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Copt-level="${XBOND_FUZZ_OPT_LEVEL:-1}" -Ccodegen-units=1
