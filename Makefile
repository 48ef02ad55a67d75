# SPDX-License-Identifier: GPL-2.0-only
#
# The commands; "make help" lists them. Kbuild describes how the module is built.

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all module tool demo test test-all test-rest check netns fuzz fuzz-netlink soak sanitize
.PHONY: mutants shell vng
.PHONY: bench chart setup update deb test-install install uninstall clean distclean help
MAKEFLAGS += --no-print-directory
# T=pattern selects tests, or bugs; KERNEL (a release) or KDIR (a build directory) is the kernel to
# build for; DESTDIR and PREFIX are for install.
T ?=
RUNS ?= 1
DESTDIR ?=
PREFIX ?= /usr/local
export KDIR KERNEL T RUNS TIME

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

test-all:
	@scripts/test all

test-rest:
	@scripts/test rest

netns:
	@scripts/netns

sanitize:
	@scripts/sanitize

mutants:
	@scripts/mutants

fuzz:
	@scripts/fuzz

fuzz-netlink:
	@scripts/fuzz-netlink

soak:
	@scripts/soak

shell:
	@scripts/shell

vng:
	@scripts/shell vng

bench:
	@scripts/bench

chart:
	@scripts/chart

setup:
	@scripts/setup

update:
	@scripts/setup --update

deb:
	@scripts/deb

test-install:
	@scripts/test-install

install:
	@WG_LINKS="$(WG_LINKS)" scripts/install "$(DESTDIR)" "$(PREFIX)"

uninstall:
	@scripts/install --remove "$(DESTDIR)" "$(PREFIX)"

clean:
	@scripts/clean

distclean: clean
	@scripts/clean cache

help:
	@echo 'make            make module and make tool'
	@echo 'make module     build wireguard_rs.ko: for the running kernel if possible, else'
	@echo '                for the stock 7.3 kernel in the rootfs (made if needed).'
	@echo '                KERNEL=RELEASE or KDIR=DIR: for that kernel'
	@echo 'make tool       build wg-rs, man pages, completions and systemd unit, in'
	@echo '                userspace/dist'
	@echo 'make demo       a tunnel on the stock kernel in QEMU (as root; the first run'
	@echo '                takes 4 to 6 minutes)'
	@echo 'make test       the host and guest tests of this module. T=pattern: only tests with'
	@echo '                that in the name'
	@echo 'make test-all   make check and make test, controls with the in-tree module, foreign'
	@echo '                implementations that are compiled, a sanitizer kernel'
	@echo 'make check      formatting, lints, host tests, module build, rules: no guest'
	@echo 'make sanitize   the tests on a kernel with KASAN, lockdep, kmemleak and more'
	@echo '                (which takes about 17 minutes to build, once)'
	@echo 'make mutants    put bugs into copies of the module: does a test notice each?'
	@echo '                T=pattern: only bugs with that in the name'
	@echo "make netns      the kernel's netns.sh on this module. RUNS=N: N times, each in"
	@echo '                a new guest'
	@echo 'make fuzz-netlink   generated netlink requests to this and the in-tree module.'
	@echo '                CASES=N (default a million), SEED=N'
	@echo 'make soak       floods, changes, CPU hotplug, memory pressure, all at once, on one'
	@echo '                tunnel that must survive. TIME=N seconds (default 600), SEED=N'
	@echo 'make fuzz       the targets of fuzz/ (what wg-rs parses) under libFuzzer.'
	@echo '                TIME=N seconds each (default 60)'
	@echo 'make shell      a root shell in the guest, with the module in /wgrs (^A x to'
	@echo '                leave)'
	@echo 'make vng        the same with virtme-ng'
	@echo 'make bench      compare this module with the in-tree one (scripts/bench --boot'
	@echo '                scale: with 1, 2 and 4 vCPUs and up to 64 peers, 11 minutes)'
	@echo 'make chart      beside IPsec, OpenVPN and WireGuard in user space, and against the'
	@echo '                number of peers: a page with pictures, in results/chart'
	@echo 'make install    install the module for the running kernel, the tool below'
	@echo '                PREFIX (default /usr/local). DESTDIR=DIR is supported'
	@echo 'make uninstall  remove both'
	@echo 'make deb        build the Debian packages, in results/deb'
	@echo 'make test-install   install them on a Debian 13 image, and boot it with several'
	@echo '                kernels: who serves, and do the tunnels come up?'
	@echo 'make setup      make the rootfs'
	@echo 'make update     look for a newer kernel and move to it'
	@echo 'make clean      remove build results from the checkout'
	@echo 'make distclean  also remove the cache (the rootfs and all kernels)'
