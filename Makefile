# SPDX-License-Identifier: GPL-2.0
#
# Commands for people; the module's own build description is Kbuild. "make help" lists them.

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all module tool demo test check netns fuzz fuzz-netlink sanitize shell vng bench setup update install uninstall
.PHONY: clean distclean help
MAKEFLAGS += --no-print-directory
# T=pattern chooses tests; DESTDIR and PREFIX move the installation; KDIR chooses the kernel to build for.
T ?=
RUNS ?= 1
DESTDIR ?=
PREFIX ?= /usr/local
export KDIR T RUNS TIME

all: module tool

module:
	@scripts/build

tool:
	@scripts/tool

demo:
	@scripts/demo

check:
	@scripts/test check

test:
	@scripts/test

netns:
	@scripts/netns

sanitize:
	@scripts/sanitize

fuzz:
	@scripts/fuzz

fuzz-netlink:
	@scripts/fuzz-netlink

shell:
	@scripts/shell

vng:
	@scripts/shell vng

bench:
	@scripts/bench

setup:
	@scripts/setup

update:
	@scripts/setup --update

install:
	@scripts/install "$(DESTDIR)" "$(PREFIX)"

uninstall:
	@scripts/install --remove "$(DESTDIR)" "$(PREFIX)"

clean:
	@scripts/clean

distclean: clean
	@scripts/clean cache

help:
	@echo 'make            make module and make tool'
	@echo 'make module     build wireguard_rs.ko: for the running kernel where that is possible, else for Debian'"'"'s'
	@echo '                stock 7.3 kernel in the root folder (set up when needed). KDIR=DIR: for that kernel'
	@echo 'make tool       build wg-rs, its man pages, shell completions and systemd unit: userspace/dist'
	@echo 'make demo       a tunnel on the stock kernel in QEMU, from nothing (root; first run 4-6 minutes)'
	@echo 'make test       check, then the guest tests. T=pattern: only the tests whose name contains it'
	@echo 'make check      formatting, lints, host tests, module build, rules: all that needs no guest'
	@echo 'make sanitize   the tests on a kernel with KASAN, lockdep, kmemleak and more (its build: about 17 minutes, once)'
	@echo 'make netns      the kernel'"'"'s own netns.sh on this module. RUNS=N: N times, each in a fresh guest'
	@echo 'make fuzz-netlink   generated netlink requests to both modules. CASES=N (a million), SEED=N'
	@echo 'make fuzz       the fuzz targets of fuzz/ (what wg-rs parses) under libFuzzer. TIME=N seconds each (60)'
	@echo 'make shell      a root shell in the guest, the module at hand (^A x leaves)'
	@echo 'make vng        the same through virtme-ng'
	@echo 'make bench      this module beside the in-tree one'
	@echo 'make install    the module into /lib/modules/$$(uname -r)/updates, the tool below PREFIX (/usr/local); DESTDIR is'
	@echo '                honoured. make uninstall takes both away again'
	@echo 'make setup      the root folder only       make update     look for a newer kernel and move to it'
	@echo 'make clean      what builds left here      make distclean  the cache (root folder) as well'
