//! Homes: a line that carries little upwards, and a router that translates addresses and lets
//! nothing in that nobody inside has asked for.

use super::netns::{Host, World, ip, nft};

/// How long what is sent may wait in front of a line that is full.
const WAIT: &str = "400ms";

/// What a router does to the port of a datagram that goes out. Neither lets anything in that is
/// no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Keeps it where it can: whoever was told the address reaches the home once it has sent to
    /// him. The kind of most homes.
    Keeps,
    /// Another one for each who is sent to (`fully-random`): what others were told is of no use.
    Scatters,
}

impl Host {
    /// Lets it send that many bits per second (tbf).
    pub fn shape(&self, bits: u64) {
        let rate = format!("{bits}bit");
        let words = ["root", "tbf", "rate", &rate, "burst", "8kb", "latency", WAIT];
        let status = std::process::Command::new("tc")
            .args(["-n", &self.name, "qdisc", "replace", "dev", "eth0"])
            .args(words)
            .status()
            .expect("tc runs");
        assert!(status.success(), "tc {words:?}");
    }
}

impl World {
    /// Turns the host into a router with a home behind it, in which its programs run from now on.
    /// To others its address stays what it was.
    pub fn put_behind_router(&mut self, index: usize, nat: Nat) {
        let host = &mut self.hosts[index];
        let (router, home) = (host.name.clone(), format!("{}home{index}", self.tag));
        ip(&["netns", "add", &home], "");
        let wires = format!(
            "link add lan0 type veth peer name eth0 netns {home}\n\
             addr add 192.168.77.1/24 dev lan0\nlink set lan0 up\n"
        );
        ip(&["-n", &router, "-batch", "-"], &wires);
        let inside = "link set lo up\nlink set eth0 gso_max_segs 1 up\n\
                      addr add 192.168.77.2/24 dev eth0\nroute add default via 192.168.77.1\n";
        ip(&["-n", &home, "-batch", "-"], inside);
        ip(&["netns", "exec", &router, "sysctl", "-qw", "net.ipv4.ip_forward=1"], "");
        let random = if nat == Nat::Scatters { " fully-random" } else { "" };
        let guard = |hook: &str| {
            format!(
                "chain {hook} {{\ntype filter hook {hook} priority 0; policy drop;\n\
                 ct state established,related accept\niifname != \"eth0\" accept\n}}\n"
            )
        };
        let rules = format!(
            "table ip router {{\nchain out {{\n\
             type nat hook postrouting priority 100; policy accept;\n\
             oifname \"eth0\" masquerade{random}\n}}\n{}{}}}\n",
            guard("forward"),
            guard("input")
        );
        nft(&router, &rules);
        host.name = home;
    }
}
