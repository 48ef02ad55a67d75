// SPDX-License-Identifier: GPL-2.0-only
//! Autoloading: the kernel loads the installed driver, or the in-tree one without it.

use super::{bash, Keys};
use crate::tests::Test;
use anyhow::{ensure, Context, Result};
use harness::cmd;
use harness::modules::{loaded, unload, Modules, INTREE, OURS};
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
                 /sbin/modprobe -d {SYSTEM} -C {SYSTEM}/etc/modprobe.d \"$@\"\n"
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
    for script in ["install", "lib.sh"] {
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

fn autoload(ctx: &Ctx) -> Result<()> {
    make_system()?;
    let redirected = Redirected::new()?;
    loads(INTREE).context("before the installation")?;
    install(ctx)?;
    loads(if ctx.env.stand_in { INTREE } else { OURS }).context("after the installation")?;
    // The installed file that makes the choice; without it depmod's order would.
    let conf = format!("{SYSTEM}/etc/modprobe.d/wireguard_rs.conf");
    let text = fs::read_to_string(&conf)?;
    ensure!(text.contains("blacklist wireguard"), "{conf}: {text}");
    drop(redirected);
    fs::remove_dir_all(SYSTEM)?;
    Ok(())
}
