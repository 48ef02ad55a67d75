// SPDX-License-Identifier: GPL-2.0-only
//! Autoloading: the kernel loads the installed driver, or the in-tree one where that is not there
//! or is refused.

use super::{bash, Keys};
use crate::tests::Test;
use anyhow::{ensure, Context, Result};
use harness::cmd;
use harness::modules::{loaded, unload, unload_all, Modules, INTREE, OURS};
use harness::netns::Netns;
use harness::runner::{Boot, Ctx, Subject};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

pub(super) fn register(list: &mut Vec<Test>) {
    list.push(Test {
        name: "scenario-autoload".to_owned(),
        boot: Boot::Smp,
        modules: Modules::None,
        subject: Subject::Rs,
        bound: Duration::from_secs(120),
        body: Box::new(autoload),
    });
}

/// The root of the system to install to.
const SYSTEM: &str = "/tmp/wgrs-system";
/// What makes modprobe, and those that it runs, use that system.
const OPTIONS: &str = "-d /tmp/wgrs-system -C /tmp/wgrs-system/etc/modprobe.d";
const HELPER: &str = "/proc/sys/kernel/modprobe";

/// Makes the kernel load modules from [`SYSTEM`] until dropped.
struct Redirected {
    helper: String,
    script: String,
}

impl Redirected {
    fn new() -> Result<Self> {
        let helper = fs::read_to_string(HELPER)?.trim().to_owned();
        // The kernel runs its helper in the root of the guest's init, not in ours.
        let outer = "/new";
        let script = format!("{SYSTEM}/modprobe");
        fs::write(
            &script,
            format!(
                "#!/init.d/busybox sh\nexec /init.d/busybox chroot {outer} \
                 /usr/bin/env MODPROBE_OPTIONS='{OPTIONS}' /sbin/modprobe \"$@\"\n"
            ),
        )?;
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
        fs::write(HELPER, format!("{outer}{script}"))?;
        Ok(Redirected { helper, script })
    }
}

impl Drop for Redirected {
    fn drop(&mut self) {
        let _ = fs::write(HELPER, &self.helper);
        let _ = fs::remove_file(&self.script);
    }
}

/// Copies the in-tree module and the dependencies of both to [`SYSTEM`].
fn make_system() -> Result<()> {
    cmd::run(&[
        "bash",
        "-ec",
        &format!(
            "rm -rf {SYSTEM}; release=$(uname -r); modules={SYSTEM}/lib/modules/$release
             mkdir -p $modules {SYSTEM}/etc/modprobe.d {SYSTEM}/checkout/scripts
             cp /lib/modules/$release/modules.{{order,builtin,builtin.modinfo}} $modules/
             modprobe -a --show-depends wireguard udp_tunnel ip6_udp_tunnel libchacha20poly1305 \
                 libcurve25519 |
                 while read -r verb file rest; do
                     [ $verb = insmod ] || continue
                     target=$modules/${{file#/lib/modules/$release/}}
                     mkdir -p ${{target%/*}}
                     cp $file $target
                 done
             depmod -b {SYSTEM} $release"
        ),
    ])
    .map(drop)
}

/// `make install` into the system, with a copy of the checkout's script.
fn install(ctx: &Ctx) -> Result<()> {
    let checkout = format!("{SYSTEM}/checkout");
    for script in ["install", "lib.sh", "wireguard_rs.conf"] {
        let from = Path::new("/wgrs/scripts").join(script);
        fs::copy(&from, format!("{checkout}/scripts/{script}"))
            .with_context(|| from.display().to_string())?;
    }
    fs::copy(ctx.env.ko()?, format!("{checkout}/wireguard_rs.ko"))?;
    cmd::run(&[&format!("{checkout}/scripts/install"), SYSTEM]).map(drop)
}

/// Each way to request the driver must load `wanted` and not the other one.
fn loads(wanted: &str) -> Result<()> {
    let ns = Netns::new("a")?;
    let private = Keys::new(&ns)?.private;
    let link = "ip link add wg0 type wireguard";
    let family = "wg show wg7 || true";
    let quick = format!(
        "printf '[Interface]\\nPrivateKey = {private}\\nAddress = 10.1.0.1/24\\n' \
             >/run/wireguard/wg0.conf
         wg-quick up /run/wireguard/wg0.conf"
    );
    for how in [link, family, &quick] {
        unload(wanted)?;
        ensure!(
            !loaded(OURS) && !loaded(INTREE),
            "a module is already loaded"
        );
        bash(&ns, how)?;
        ensure!(
            loaded(wanted) && (loaded(OURS) != loaded(INTREE)),
            "{how}: {wanted} was not loaded (ours: {}, in-tree: {})",
            loaded(OURS),
            loaded(INTREE)
        );
        if how != family {
            ensure!(
                ns.sh("wg show interfaces")?.trim() == "wg0",
                "{how}: no device"
            );
            ns.sh("ip link del wg0")?;
        }
    }
    unload(wanted)
}

/// modprobe, as somebody at the keyboard runs it.
fn modprobe(arguments: &str) -> Result<()> {
    let line = format!("MODPROBE_OPTIONS='{OPTIONS}' modprobe {arguments}");
    cmd::run(&["bash", "-ec", &line]).map(drop)
}

/// `modprobe` with these arguments must succeed, and leave these modules loaded: (ours, in-tree).
fn leaves(arguments: &str, wanted: (bool, bool)) -> Result<()> {
    let done = modprobe(arguments);
    // By an alias it tries both, and says that ours was refused. The kernel does not mind.
    if wanted.0 || arguments.contains(INTREE) && !arguments.contains("-wireguard") {
        done.with_context(|| format!("modprobe {arguments}"))?;
    }
    let found = (loaded(OURS), loaded(INTREE));
    ensure!(
        found == wanted,
        "modprobe {arguments}: loaded are {found:?} (ours, in-tree), not {wanted:?}"
    );
    Ok(())
}

const ALIASES: [&str; 2] = ["rtnl-link-wireguard", "net-pf-16-proto-16-family-wireguard"];

/// By name and by alias, loaded already or not, whichever module comes first for the alias.
fn by_name_and_alias(wanted: (bool, bool)) -> Result<()> {
    let order = format!("{SYSTEM}/etc/modprobe.d/order.conf");
    for first in [INTREE, OURS] {
        let second = if first == OURS { INTREE } else { OURS };
        let lines = ALIASES.map(|alias| format!("alias {alias} {first}\nalias {alias} {second}\n"));
        fs::write(&order, lines.concat())?;
        for name in [INTREE, ALIASES[0], ALIASES[1]] {
            unload_all()?;
            leaves(&format!("-q {name}"), wanted)?;
            leaves(INTREE, wanted)?;
            leaves(&format!("-r {INTREE}"), (wanted.0, false))?;
        }
    }
    unload_all()?;
    Ok(fs::remove_file(order)?)
}

/// With `coexist=1`, the in-tree driver is loaded beside ours: by name, on demand, and by whichever
/// comes first.
fn both() -> Result<()> {
    let ns = Netns::new("a")?;
    leaves(&format!("{OURS} coexist=1"), (true, false))?;
    leaves(INTREE, (true, true))?;
    unload(INTREE)?;
    bash(
        &ns,
        "ip link add wg0 type wireguard; ip link add wg1 type wireguard_rs",
    )?;
    ensure!(
        loaded(INTREE),
        "the in-tree module was not loaded on demand"
    );
    unload_all()
}

fn autoload(ctx: &Ctx) -> Result<()> {
    make_system()?;
    let redirected = Redirected::new()?;
    loads(INTREE).context("before the installation")?;
    install(ctx)?;
    if ctx.env.stand_in {
        return loads(INTREE);
    }
    loads(OURS).context("after the installation")?;
    by_name_and_alias((true, false)).context("after the installation")?;
    both().context("with coexist=1")?;
    // As if signed with a key that the kernel does not know, or built for another one.
    let release = cmd::run(&["uname", "-r"])?;
    let file = format!(
        "{SYSTEM}/lib/modules/{}/updates/wireguard_rs.ko",
        release.trim()
    );
    let image = fs::read(&file)?;
    fs::write(&file, image.get(..image.len() / 2).unwrap_or_default())?;
    loads(INTREE).context("when ours is refused")?;
    by_name_and_alias((false, true)).context("when ours is refused")?;
    fs::remove_file(&file)?;
    cmd::run(&["depmod", "-b", SYSTEM, release.trim()])?;
    loads(INTREE).context("without ours for this kernel")?;
    cmd::run(&[
        &format!("{SYSTEM}/checkout/scripts/install"),
        "--remove",
        SYSTEM,
    ])?;
    loads(INTREE).context("after the removal")?;
    drop(redirected);
    fs::remove_dir_all(SYSTEM)?;
    Ok(())
}
