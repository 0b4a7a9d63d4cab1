//! When the machines of a host have their turn: a computer at home lets a process run when it
//! pleases. What comes meanwhile waits in its order.

use crate::base::time::Mono;
use crate::sim::flight::Flight;
use crate::sim::world::{Event, World};

impl World {
    /// Plans a turn of a machine, at `at` or soon after.
    pub(super) fn wake(&mut self, seat: usize, at: Mono) {
        let wake = self.turn_of(self.seats[seat].host, at);
        let place = &mut self.seats[seat];
        if place.wake.is_none_or(|planned| wake < planned) {
            place.wake = Some(wake);
            self.queue.plan(wake, Event::Wake { seat, life: place.life });
        }
    }

    /// The first turn of a host's machines from `at` on.
    fn turn_of(&self, host: usize, at: Mono) -> Mono {
        let host = &self.hosts[host];
        let turn = host.link.turn.as_nanos() as u64;
        if turn == 0 {
            return at;
        }
        let phase = host.phase % turn;
        let turns = at.as_nanos().saturating_sub(phase).div_ceil(turn);
        Mono::from_nanos(turns * turn + phase)
    }

    /// Gives a host's machine everything that has come.
    pub(super) fn read_inbox(&mut self, host: usize) {
        let now = self.queue.now();
        while self.hosts[host].inbox.front().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, flight)) = self.hosts[host].inbox.pop_front() {
                self.land(host, &flight);
            }
        }
    }

    /// A flight will come to `host`.
    pub(super) fn bring(&mut self, host: usize, at: Mono, flight: Box<Flight>) {
        let place = &self.hosts[host];
        let reader = place.seats.first().copied().filter(|seat| self.lives(*seat));
        match reader {
            Some(seat) if !place.link.turn.is_zero() => {
                let inbox = &mut self.hosts[host].inbox;
                let behind = inbox.partition_point(|(other, _)| *other <= at);
                inbox.insert(behind, (at, flight));
                self.wake(seat, at);
            }
            _ => self.queue.plan(at, Event::Land { host, flight }),
        }
    }

    /// What nobody has read when a process ends, nobody reads.
    pub(super) fn forget_inbox(&mut self, seat: usize) {
        let host = self.seats[seat].host;
        self.hosts[host].inbox.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::net::{Ipv4Addr, SocketAddrV4};
    use std::rc::Rc;
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::base::time::Now;
    use crate::io::machine::{Input, Machine, Outbox};
    use crate::shard::mail::Mail;
    use crate::sim::flight::Cargo;
    use crate::sim::link::Link;
    use crate::sim::population;
    use crate::sim::world::PORT;

    /// Notes when it is told something, and what.
    struct Witness(Rc<RefCell<Vec<(u64, u8)>>>);

    impl Machine for Witness {
        type Mail = Mail;

        fn handle(&mut self, now: Now, input: Input<'_, Mail>) {
            if let Input::Datagrams { data, .. } = input {
                let millis = now.mono.as_nanos() / 1_000_000;
                self.0.borrow_mut().push((millis, data[0]));
            }
        }

        fn poll(&mut self, _: Now, _: &mut Outbox<Mail>) {}

        fn next_deadline(&self) -> Option<Mono> {
            None
        }
    }

    #[test]
    fn what_comes_waits_for_the_turn_of_its_host() {
        let (turn, at) = (Duration::from_millis(50), Mono::from_millis);
        let told = |turn: Duration| {
            let mut world = World::new(5, 2_000_000, 0, None);
            let ips = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];
            let links = [population::relay(1_000_000), population::relay(1_000_000)];
            for (ip, link) in ips.into_iter().zip(links) {
                world.add_host(ip, Link { turn, ..link });
            }
            let seat = world.add_seat(1);
            let told = Rc::new(RefCell::new(Vec::new()));
            world.seat(seat, Box::new(Witness(Rc::clone(&told))));
            let [from, to] = ips.map(|ip| SocketAddrV4::new(ip, PORT));
            // One of them was overtaken by the one behind it.
            for (n, millis) in [(1, 1_010), (2, 1_012), (4, 1_066), (3, 1_063)] {
                let cargo = Cargo::Datagram(Bytes::from(vec![n; 9]).into());
                world.bring(1, at(millis), Box::new(Flight::new(from, to, cargo, 0)));
            }
            while world.next(at(2_000)).is_some() {}
            let skew = world.hosts[1].skew.as_nanos() / 1_000_000;
            let told = told.take().into_iter();
            told.map(|(millis, n)| (millis - skew as u64, n)).collect::<Vec<_>>()
        };
        let came = [(1_010, 1), (1_012, 2), (1_063, 3), (1_066, 4)];
        let late = |told: u64, came: u64| told.abs_diff(came) <= 1;
        let at_once = told(Duration::ZERO);
        assert!(at_once.iter().zip(came).all(|(told, came)| told.1 == came.1), "{at_once:?}");
        assert!(at_once.iter().zip(came).all(|(told, came)| late(told.0, came.0)), "{at_once:?}");
        let in_turn = told(turn);
        assert!(in_turn.iter().map(|(_, n)| n).eq(&[1, 2, 3, 4]), "{in_turn:?}");
        let [first, second, third, fourth] = [0, 1, 2, 3].map(|n| in_turn[n].0);
        assert!(first == second && third == fourth, "{in_turn:?}");
        assert!(late(third, first + 50) && (1_012..1_062).contains(&first), "{in_turn:?}");
    }

    #[test]
    fn what_nobody_has_read_is_gone_with_its_reader() {
        let mut world = World::new(5, 2_000_000, 0, None);
        let ip = Ipv4Addr::new(192, 0, 2, 1);
        let turn = Duration::from_millis(50);
        world.add_host(ip, Link { turn, ..population::relay(1_000_000) });
        let seat = world.add_seat(0);
        let told = Rc::new(RefCell::new(Vec::new()));
        world.seat(seat, Box::new(Witness(Rc::clone(&told))));
        let bring = |world: &mut World, n: u8, millis| {
            let at = SocketAddrV4::new(ip, PORT);
            let cargo = Cargo::Datagram(Bytes::from(vec![n; 9]).into());
            world.bring(0, Mono::from_millis(millis), Box::new(Flight::new(at, at, cargo, 0)));
        };
        bring(&mut world, 1, 1_000);
        world.kill(seat);
        world.seat(seat, Box::new(Witness(Rc::clone(&told))));
        bring(&mut world, 2, 1_100);
        while world.next(Mono::from_millis(2_000)).is_some() {}
        assert!(told.borrow().iter().map(|(_, n)| *n).eq([2]), "{:?}", told.borrow());
        world.freeze(seat);
        for n in 0..100 {
            bring(&mut world, 3, 2_000 + n);
        }
        assert!(world.hosts[0].inbox.is_empty(), "nobody reads what comes");
    }
}
