# The two commands are `make demo` and `make test`; the rest are their parts.
#
#   make demo    install what is missing, build, make a small real guest once, convert it, prove that it boots
#   make demo-appliance   its second half: mirror a running machine into the appliance, cut it off, recover it
#   make test    set up and run the whole test suite
#   make check   formatting, lints, licences of dependencies
#   make fuzz    every parser against hostile input, FUZZ_SECONDS each; make fuzz-short: some seconds each
#   make build   the program: target/landfall
#   make appliance   the bootable machine of a recovery site, in every form: target/appliance/landfall.ova and its like
#   make matrix  the boots that take too long for make test
#   make bench   disk conversion beside qemu-img, every pair of formats, and the NBD receiver beside nbdkit: tables, JSON
#   make bench-machine   the whole conversion of a machine beside virt-v2v
SHELL := /bin/sh
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
CARGO ?= cargo

.PHONY: appliance demo demo-appliance test matrix check build bench bench-machine fuzz fuzz-short setup-build setup-check setup-demo setup-test clean

demo: build setup-demo
	tools/demo.sh

demo-appliance: build setup-demo
	tools/demo-appliance.sh

test: setup-build setup-demo setup-test
	tools/prepare-tests.sh
	tools/test.sh

matrix: build setup-demo setup-test
	APPLIANCE_PROGRAM="$(CURDIR)/target/landfall" $(CARGO) test --test landfall -- --ignored appliance:: boots:: recoveries:: service::

check: setup-check
	tools/check.sh

build: setup-build
	$(CARGO) build --release
	mkdir -p target && ln -sf "$$(tools/where.sh)" target/landfall

appliance: build
	tools/appliance.sh target/appliance

bench: build setup-demo setup-test
	tools/bench-disk.sh target/bench
	$(CARGO) bench --bench convert
	$(CARGO) bench --bench receive

bench-machine: build setup-demo
	tools/bench-virt-v2v.sh

FUZZ_SECONDS ?= 600

fuzz: setup-build
	tools/fuzz.sh $(FUZZ_SECONDS)

fuzz-short: setup-build
	tools/fuzz.sh 8

setup-build:
	tools/setup.sh build

setup-check:
	tools/setup.sh check

setup-demo:
	tools/setup.sh demo
	tools/fetch-sandbox-kernel.sh target/sandbox

setup-test:
	tools/setup.sh test

clean:
	rm -rf target
