//! `[[ingest]]`: each one checked alone, and against the others and the listeners.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use toml::Spanned;

use crate::base::ids::StreamName;
use crate::config::error::Problem;
use crate::config::parse::{self, Bad};
use crate::config::raw::{Ingest, Mixed};
use crate::config::resolve::{Reader, overlap};
use crate::config::resolved::Config;
use crate::config::table::INGEST_FIELDS;
use crate::ingest::settings::{Settings, Way};
use crate::registry::settings::Network;

/// Who may send where the operator names nobody: programs on this machine.
const LOOPBACK: [Network; 2] = [
    Network { address: IpAddr::V4(Ipv4Addr::LOCALHOST), prefix: 8 },
    Network { address: IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), prefix: 128 },
];

/// Every `[[ingest]]`; `None` after a problem with one of them.
pub(super) fn read(r: &mut Reader<'_>, typed: &[Spanned<Ingest>]) -> Option<Vec<Settings>> {
    let all: Vec<_> = typed.iter().map(|entry| read_one(r, entry)).collect();
    let all: Vec<Settings> = all.into_iter().collect::<Option<_>>()?;
    for (index, (one, entry)) in all.iter().zip(typed).enumerate() {
        let before = &all[..index];
        if before.iter().any(|other| other.stream == one.stream) {
            let message = format!("{:?} has an [[ingest]] already", one.stream.as_str());
            let help = "a stream has one way in besides HTTP";
            report(r, entry.span(), "stream", Bad::with(message, help));
        }
        if let Some(other) = before.iter().find(|other| collide(&one.way, &other.way)) {
            let message = format!("{} and {} collide", one.way.address(), other.way.address());
            report(r, entry.span(), name(&one.way), Bad::with(message, "take another port"));
        }
    }
    Some(all)
}

fn read_one(r: &mut Reader<'_>, entry: &Spanned<Ingest>) -> Option<Settings> {
    let span = entry.span();
    let entry = entry.get_ref();
    let name = |text: &str| {
        text.parse::<StreamName>().map_err(|why| Bad::with(format!("{text:?}: {why}"), "\"cam1\""))
    };
    let stream = match &entry.stream {
        Some(typed) => part(r, "stream", typed.span(), name(typed.get_ref())),
        None => part(r, "stream", span.clone(), Err(Bad::new("has no value"))),
    };
    let way = match (&entry.udp, &entry.tcp) {
        (Some(udp), None) => read_udp(r, entry, udp),
        (None, Some(tcp)) => read_tcp(r, entry, tcp),
        (Some(_), Some(tcp)) => {
            let help = "keep one of them; give the other stream an [[ingest]] of its own";
            part(r, "tcp", tcp.span(), Err(Bad::with("udp is given as well", help)))
        }
        (None, None) => {
            let help = "add where the stream comes in: udp = \"0.0.0.0:5000\"";
            part(r, "udp", span.clone(), Err(Bad::with("neither udp nor tcp is given", help)))
        }
    };
    let allow = match &entry.allow {
        Some(typed) if typed.get_ref().is_empty() => {
            let help = "name a network, or leave the key out";
            part(r, "allow", typed.span(), Err(Bad::with("nobody may send", help)))
        }
        Some(typed) => {
            let items = typed.get_ref().iter();
            let all: Vec<_> = items
                .map(|item| part(r, "allow", item.span(), parse::network(item.get_ref())))
                .collect();
            all.into_iter().collect()
        }
        None if way.is_some_and(|way| way.address().ip().is_multicast()) => {
            let message = "a multicast group needs to know who may send to it";
            let help = "add allow = [\"ADDRESS/PREFIX\"] with the network of the senders";
            part(r, "allow", span, Err(Bad::with(message, help)))
        }
        None => Some(LOOPBACK.to_vec()),
    };
    Some(Settings { stream: stream?, way: way?, allow: allow? })
}

fn read_udp(r: &mut Reader<'_>, entry: &Ingest, typed: &Spanned<String>) -> Option<Way> {
    let address = part(r, "udp", typed.span(), parse::address(typed.get_ref()))?;
    let (mut local, mut index) = (Ipv4Addr::UNSPECIFIED, 0);
    if let Some(typed) = &entry.interface {
        match interface(address, typed.get_ref()) {
            Ok(Interface::Local(address)) => local = address,
            Ok(Interface::Index(number)) => index = number,
            Err(bad) => return part(r, "interface", typed.span(), Err(bad)),
        }
    }
    Some(Way::Udp { address, local, index })
}

fn read_tcp(r: &mut Reader<'_>, entry: &Ingest, typed: &Spanned<String>) -> Option<Way> {
    if let Some(interface) = &entry.interface {
        let bad = Bad::with("only a multicast group is joined on an interface", "leave it out");
        return part(r, "interface", interface.span(), Err(bad));
    }
    let tcp = |address: SocketAddr| match address.ip().is_multicast() {
        true => Err(Bad::with(format!("{address} is a multicast group"), "write it as udp")),
        false => Ok(Way::Tcp { address }),
    };
    part(r, "tcp", typed.span(), parse::address(typed.get_ref()).and_then(tcp))
}

enum Interface {
    Local(Ipv4Addr),
    Index(u32),
}

/// How the interface of a group is named depends on the family of the group.
fn interface(group: SocketAddr, typed: &Mixed) -> Result<Interface, Bad> {
    if !group.ip().is_multicast() {
        let message = format!("{group} is no multicast group, and only such are joined");
        return Err(Bad::with(message, "leave it out: the address says where to listen"));
    }
    let text = match typed {
        Mixed::Number(number) => number.to_string(),
        Mixed::Text(text) => text.clone(),
    };
    let bad = || Bad::new(format!("{text:?} names no interface for {group}"));
    if group.is_ipv4() {
        text.parse().map(Interface::Local).map_err(|_| bad())
    } else {
        let index = text.parse().ok().filter(|index| *index > 0);
        index.map(Interface::Index).ok_or_else(bad)
    }
}

/// What no `[[ingest]]` can be blamed for alone.
pub(super) fn check_together(r: &mut Reader<'_>, config: &Config) {
    let spans: Vec<_> = r.layers.raw().ingest.iter().flatten().map(Spanned::span).collect();
    for (one, span) in config.ingest.iter().zip(&spans) {
        let Way::Tcp { address } = one.way else { continue };
        for (key, listen) in [("http", config.listen.http), ("control", config.listen.control)] {
            if overlap(address, listen) {
                let message = format!("{address} and [listen] {key} collide");
                report(r, span.clone(), "tcp", Bad::with(message, "take another port"));
            }
        }
    }
    let max = config.registry.max_streams;
    if let Some(span) = spans.get(max) {
        let message = format!("{} streams, but [streams] max is {max}", spans.len());
        report(r, span.clone(), "stream", Bad::with(message, "raise [streams] max"));
    }
}

/// Whether two ways in would take each other's data.
fn collide(a: &Way, b: &Way) -> bool {
    let same = matches!(a, Way::Udp { .. }) == matches!(b, Way::Udp { .. });
    same && overlap(a.address(), b.address())
}

fn name(way: &Way) -> &'static str {
    match way {
        Way::Udp { .. } => "udp",
        Way::Tcp { .. } => "tcp",
    }
}

fn part<T>(
    r: &mut Reader<'_>,
    field: &str,
    span: Range<usize>,
    value: Result<T, Bad>,
) -> Option<T> {
    value.map_err(|bad| report(r, span, field, bad)).ok()
}

fn report(r: &mut Reader<'_>, span: Range<usize>, field: &str, bad: Bad) {
    let known = INGEST_FIELDS.iter().find(|known| known.name == field);
    let help = match known {
        Some(known) if bad.help.is_empty() => format!("allowed: {}", known.allowed),
        _ => bad.help,
    };
    let message = format!("[[ingest]] {field}: {}", bad.message);
    r.problems.push(Problem { place: r.layers.place_in_file(span), message, help });
}
