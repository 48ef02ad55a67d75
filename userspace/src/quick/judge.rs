// SPDX-License-Identifier: GPL-2.0-only
//! What is wrong with a file: one judgement for `up`, before it does anything, and for `check`.

use super::hook;
use super::settings::Settings;
use crate::config::{self, value::Port, Fault, Item, Kind, Place, Statement};
use crate::wg;

/// A file that has been read.
#[derive(Debug)]
pub struct Judged {
    /// What is wg-quick's.
    pub settings: Settings,
    /// What is wg's.
    pub statements: Vec<Statement>,
    /// All that is wrong, in the order of the file.
    pub faults: Vec<Fault>,
}

impl Judged {
    /// Judges what can be judged by the text alone.
    pub fn new(settings: Settings, strict: bool) -> Self {
        let statements = config::parse(&settings.blanked, strict);
        let mut judged = Judged {
            faults: settings.faults.clone(),
            settings,
            statements,
        };
        let faults = config::faults(&judged.statements);
        judged.add(faults);
        judged
    }

    /// Judges what also depends on this machine: the names of services, and what its shell thinks
    /// of the hooks of the interface `name`. Hosts are not looked up, and nothing is run.
    pub fn with_system(mut self, name: &str) -> Self {
        let services = self.statements.iter().filter_map(unknown_service);
        let hooks = self.settings.hooks.iter().filter_map(|found| {
            let reason = hook::syntax_error(&found.script, name)?;
            Some(fault(Kind::Hook(reason), found.place, b""))
        });
        let faults = services.chain(hooks).collect();
        self.add(faults);
        self
    }

    fn add(&mut self, faults: Vec<Fault>) {
        self.faults.extend(faults);
        self.faults.sort_by_key(|fault| fault.place);
    }
}

fn fault(kind: Kind, place: Place, text: &[u8]) -> Fault {
    let text = text.to_vec();
    Fault { kind, place, text }
}

/// A port by a name that no service of this machine has.
fn unknown_service(statement: &Statement) -> Option<Fault> {
    let name = match &statement.item {
        Ok(Item::ListenPort(Port::Name(name))) => name,
        Ok(Item::Endpoint(endpoint)) if !endpoint.service().iter().all(u8::is_ascii_digit) => {
            endpoint.service()
        }
        _ => return None,
    };
    let unknown = wg::port(name).is_err();
    unknown.then(|| fault(Kind::Service, statement.place, &config::showable(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<(usize, Kind)> {
        let judged = Judged::new(Settings::parse(text.as_bytes()), true).with_system("wg0");
        let faults = judged.faults.into_iter();
        faults.map(|fault| (fault.place.line, fault.kind)).collect()
    }

    #[test]
    fn everything_in_the_order_of_the_file() {
        let text = "[Interface]\nPostUp = echo %i; if\nListenPort = 51820/udp\nMTU = x\nJc = 4\n\
                    Address = 10.0.0.1/33\nPreDown = case %i in wg*) true;; esac # (\n[Peer]\n\
                    Endpoint = a.example:no-such-service\nAllowedIPs = x, 10.0.0.0/8, y\n";
        let mut found = kinds(text);
        let hook = found.remove(0);
        assert!(matches!(hook, (2, Kind::Hook(why)) if why.contains("syntax error")));
        let wanted = [
            (3, Kind::Service),
            (4, Kind::Mtu),
            (5, Kind::Line),
            (6, Kind::Address),
            (8, Kind::NoPublicKey),
            (9, Kind::Service),
            (10, Kind::Ip),
            (10, Kind::Ip),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn services_have_names() {
        // A sign is no fault to the C library.
        assert_eq!(kinds("[Interface]\nListenPort = +5\n"), []);
    }
}
