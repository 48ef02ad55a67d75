// SPDX-License-Identifier: GPL-2.0-only
//! Runs the commands that neither wg nor wg-quick have.

use nix::errno::Errno;
use std::io::{self, Write};
use std::path::Path;

use crate::cli::{Events, Native, Options, What};
use crate::metrics::{self, Source};
use crate::say::{hint, os_message, say, CommandResult, Failed};
use crate::signals::end_by_broken_pipe;
use crate::status::Facts;
use crate::wg::{is_dumb, Context, Out};
use crate::{check, driver, events, generate, genl, json, monitor, options, quick, stats};

/// Says what went wrong, and what to do about it.
fn failed(error: &io::Error, interface: &str) -> Failed {
    say(os_message(error));
    if let Some(text) = genl::explain(error, interface) {
        hint(&text);
    }
    Failed::USUAL
}

/// Runs one of the commands.
pub fn run(context: &Context, command: &Native) -> CommandResult {
    match command {
        Native::Monitor(arguments) => {
            let options = monitor::Options {
                interval: arguments.interval,
                count: if arguments.once {
                    Some(1)
                } else {
                    arguments.count
                },
                plain: arguments.once || is_dumb(),
                colour: context.colour(),
            };
            let names = &arguments.interfaces;
            let first = names.first().map_or("", String::as_str);
            monitor::run(&options, names, context.family.as_deref())
                .map_err(|error| failed(&error, first))
        }
        Native::Events(Events { interfaces, json }) => {
            match events::run(interfaces, *json, &mut io::stdout().lock()) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    end_by_broken_pipe();
                    Err(Failed::USUAL)
                }
                Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => {
                    say("No driver that tells of events is loaded");
                    hint("the module wireguard_rs does; for others there is `wg-rs monitor'");
                    Err(Failed::USUAL)
                }
                result => result.map_err(|error| failed(&error, "")),
            }
        }
        Native::Options(Options {
            interface,
            settings,
        }) => {
            let change = options::parse(settings).map_err(|why| Failed::saying(1, why))?;
            let done = if settings.is_empty() {
                genl::options::get(interface)
                    .and_then(|options| options::show(&options, &mut io::stdout().lock()))
            } else {
                genl::options::set(interface, &change)
            };
            done.map_err(|error| {
                if error.raw_os_error() == Some(Errno::ENOENT as i32) {
                    return Failed::saying(1, format_args!("{interface} has no such peer"));
                }
                if error.raw_os_error() != Some(Errno::EPROTONOSUPPORT as i32) {
                    return failed(&error, interface);
                }
                say("No driver that has options is loaded");
                hint("the module wireguard_rs has them");
                Failed::USUAL
            })
        }
        Native::Reresolve(config) => quick::reresolve(context, &config.config),
        Native::Metrics { http } => {
            let make = || Ok(metrics::text(&sources(context)?));
            let mut out = io::stdout().lock();
            let written = if *http {
                metrics::answer(io::stdin().lock(), &mut out, make)
            } else {
                make().and_then(|text| out.write_all(text.as_bytes()))
            };
            match written {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failed::USUAL),
                written => written.map_err(|error| failed(&error, "")),
            }
        }
        Native::Status => {
            let facts = Facts::read(Path::new("/")).map_err(|error| failed(&error, ""))?;
            let mut out = Out::new(context);
            // Errors are kept for `finish`.
            let _ = facts.write(&mut out);
            out.finish()?;
            if facts.has_driver() {
                Ok(())
            } else {
                Err(Failed::USUAL)
            }
        }
        Native::Check { files } => {
            match check::run(files, context.colour(), &mut io::stdout().lock()) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Failed::USUAL),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failed::USUAL),
                Err(error) => Err(failed(&error, "")),
            }
        }
        Native::Generate { what, folder } => {
            let written = match what {
                What::Man => generate::man(folder),
                What::Completions => generate::completions(folder),
            };
            written.map_err(|error| failed(&error, ""))
        }
    }
}

/// What is told of all interfaces: of ours, more.
fn sources(context: &Context) -> io::Result<Vec<Source>> {
    let mut sources = Vec::new();
    for link in driver::interfaces(context.family.as_deref())? {
        let source = match genl::peers::counters(&link.name) {
            Ok(counters) => Ok(Source::of_counters(counters)),
            Err(error) if is_elsewhere(&error) => link.get().map(|device| Source::of(&device)),
            Err(error) => Err(error),
        };
        match source {
            // It is gone since.
            Err(error) if error.raw_os_error() == Some(Errno::ENODEV as i32) => {}
            source => sources.push(source?),
        }
    }
    Ok(sources)
}

/// The interface is none of the module that has more to tell.
fn is_elsewhere(error: &io::Error) -> bool {
    [Errno::EPROTONOSUPPORT, Errno::EOPNOTSUPP, Errno::ENODEV]
        .iter()
        .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

/// `show INTERFACE stats`.
pub fn show_stats(context: &Context, interface: &str, json: bool) -> CommandResult {
    let names = match interface {
        "all" => {
            let links = driver::interfaces(context.family.as_deref());
            let links = links.map_err(|error| failed(&error, interface))?;
            links.into_iter().map(|link| link.name).collect()
        }
        name => vec![name.to_owned()],
    };
    let mut found = Vec::new();
    for name in &names {
        match genl::peers::counters(name) {
            Ok(counters) => found.push(counters),
            // Those of other drivers are passed over when all are asked for.
            Err(error) if interface == "all" && is_elsewhere(&error) => {}
            Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => {
                say("No driver that counts these is loaded");
                hint("the module wireguard_rs does; for others there is `wg-rs show'");
                return Err(Failed::USUAL);
            }
            Err(error) if error.raw_os_error() == Some(Errno::EOPNOTSUPP as i32) => {
                say(format_args!(
                    "{name} is no interface of the module wireguard_rs"
                ));
                hint("for others there is `wg-rs show'");
                return Err(Failed::USUAL);
            }
            Err(error) => return Err(failed(&error, name)),
        }
    }
    let mut out = Out::new(context);
    // Errors are kept for `finish`.
    let _ = if json {
        stats::write_json(&found, &mut out)
    } else {
        stats::write(&found, &mut out)
    };
    out.finish()
}

/// `show --json` for one interface, for all, or for their names.
pub fn show_json(context: &Context, interface: &str) -> CommandResult {
    if interface == "interfaces" {
        let links = driver::interfaces(context.family.as_deref());
        let links = links.map_err(|error| failed(&error, interface))?;
        let names: Vec<_> = links.into_iter().map(|link| link.name).collect();
        let mut out = Out::new(context);
        let _ = json::write_names(&names, &mut out);
        return out.finish();
    }
    let names = match interface {
        "all" => Vec::new(),
        name => vec![name.to_owned()],
    };
    let devices = monitor::devices(&names, context.family.as_deref())
        .map_err(|error| failed(&error, interface))?;
    let secrets = std::env::var_os("WG_HIDE_KEYS").is_some_and(|mode| mode == "never");
    let mut out = Out::new(context);
    // Errors are kept for `finish`.
    let _ = json::write(&devices, secrets, &mut out);
    out.finish()
}
