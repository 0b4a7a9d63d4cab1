//! What is going to happen, in the order in which it will: virtual time, and for events of one
//! instant the order in which they were planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::time::Mono;

/// Events of so many nanoseconds lie together, as a power of two: 66 us.
const SPAN: u32 = 16;

/// So many spans lie on the wheel, one second: nothing sleeps longer, and little flies longer.
const SPANS: u64 = 1 << 14;

/// Events to come.
///
/// Those of the present span are sorted. Those of the next second lie on a wheel, in no order,
/// until their span begins: a heap of everything is deep, and all over the memory.
#[derive(Debug)]
pub struct Queue<E> {
    /// Small things to sort: the events lie still.
    near: BinaryHeap<Reverse<Planned>>,
    /// The present span: what is planned for it, or for an earlier one, is `near`.
    span: u64,
    /// What happens in each of the next spans, and a bit for each in which anything does.
    wheel: Vec<Vec<Planned>>,
    filled: Vec<u64>,
    /// What happens later.
    far: BinaryHeap<Reverse<Planned>>,
    /// Memory of spans that are over.
    spare: Vec<Vec<Planned>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    planned: u64,
    now: Mono,
}

/// When an event happens, its turn among those of one instant, and where it lies.
type Planned = (Mono, u64, u32);

impl<E> Default for Queue<E> {
    fn default() -> Queue<E> {
        Queue {
            near: BinaryHeap::new(),
            span: 0,
            wheel: vec![Vec::new(); SPANS as usize],
            filled: vec![0; SPANS as usize / 64],
            far: BinaryHeap::new(),
            spare: Vec::new(),
            events: Vec::new(),
            free: Vec::new(),
            planned: 0,
            now: Mono::ZERO,
        }
    }
}

impl<E> Queue<E> {
    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Mono {
        self.now
    }

    /// Plans an event; what should have happened already happens now.
    pub fn plan(&mut self, at: Mono, event: E) {
        self.planned += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            (self.events.len() - 1) as u32
        });
        self.events[place as usize] = Some(event);
        let planned = (at.max(self.now), self.planned, place);
        match span(planned.0) {
            of if of <= self.span => self.near.push(Reverse(planned)),
            of if of < self.span + SPANS => {
                let slot = (of % SPANS) as usize;
                let events = &mut self.wheel[slot];
                if events.is_empty() {
                    *events = self.spare.pop().unwrap_or_default();
                    self.filled[slot / 64] |= 1 << (slot % 64);
                }
                events.push(planned);
            }
            _ => self.far.push(Reverse(planned)),
        }
    }

    /// The next event, if it happens until `end`. Time moves on to it.
    pub fn next_until(&mut self, end: Mono) -> Option<E> {
        while self.near.is_empty() && self.turn() {}
        if self.near.peek().is_none_or(|Reverse((at, ..))| *at > end) {
            self.now = self.now.max(end);
            return None;
        }
        let Reverse((at, _, place)) = self.near.pop()?;
        self.now = at;
        self.free.push(place);
        self.events[place as usize].take()
    }

    /// Goes on to the next span in which anything happens. False: there is none.
    fn turn(&mut self) -> bool {
        let far = self.far.peek().map(|Reverse((at, ..))| span(*at));
        let Some(next) = [self.next_filled(), far].into_iter().flatten().min() else {
            return false;
        };
        self.span = next;
        let slot = (next % SPANS) as usize;
        if self.filled[slot / 64] & 1 << (slot % 64) != 0 {
            self.filled[slot / 64] &= !(1 << (slot % 64));
            let mut events = std::mem::take(&mut self.wheel[slot]);
            // They lie where nobody has looked for long: all of them are fetched at once, and not
            // one after the other when their turns come.
            let there = |(.., place): &&Planned| self.events[*place as usize].is_some();
            std::hint::black_box(events.iter().filter(there).count());
            self.near.extend(events.drain(..).map(Reverse));
            self.spare.push(events);
        }
        while self.far.peek().is_some_and(|Reverse((at, ..))| span(*at) <= next) {
            self.near.extend(self.far.pop());
        }
        true
    }

    /// The next span of the wheel in which anything happens.
    fn next_filled(&self) -> Option<u64> {
        let words = self.filled.len() as u64;
        let after = self.span + 1;
        let slot = after % SPANS;
        // The first word twice: at last what lies in it below the present span.
        (0..=words).find_map(|n| {
            let word = (slot / 64 + n) % words;
            let mask = match n {
                0 => u64::MAX << (slot % 64),
                _ if n == words => !(u64::MAX << (slot % 64)),
                _ => u64::MAX,
            };
            let bits = self.filled[word as usize] & mask;
            let found = word * 64 + u64::from(bits.trailing_zeros());
            (bits != 0).then(|| after + (found + SPANS - slot) % SPANS)
        })
    }
}

/// The span of a time.
fn span(at: Mono) -> u64 {
    at.as_nanos() >> SPAN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward_and_ties_keep_their_order() {
        let mut queue = Queue::default();
        for (at, name) in [(30, 'd'), (10, 'a'), (20, 'b'), (20, 'c')] {
            queue.plan(Mono::from_millis(at), name);
        }
        assert_eq!(queue.next_until(Mono::from_millis(15)), Some('a'));
        assert_eq!(queue.now(), Mono::from_millis(10));
        assert_eq!(queue.next_until(Mono::from_millis(15)), None);
        assert_eq!(queue.now(), Mono::from_millis(15));
        queue.plan(Mono::ZERO, 'e');
        let end = Mono::from_millis(99);
        let rest: Vec<char> = std::iter::from_fn(|| queue.next_until(end)).collect();
        assert_eq!(rest, ['e', 'b', 'c', 'd']);
        assert_eq!(queue.now(), end);
    }

    #[test]
    fn it_does_what_sorting_does() {
        let (mut queue, mut all) = (Queue::default(), Vec::new());
        let mut rng = fastrand::Rng::with_seed(11);
        for step in 0..20_000_u32 {
            // From the past to far beyond the wheel.
            let most = 1 << rng.u32(..33);
            let ahead = rng.u64(..most);
            let at = Mono::from_nanos((queue.now().as_nanos() + ahead).saturating_sub(1_000));
            queue.plan(at, step);
            all.push((at.max(queue.now()), step));
            if rng.u8(..3) > 0 {
                let end = queue.now() + std::time::Duration::from_nanos(rng.u64(..1 << 31));
                let first = all.iter().enumerate().min_by_key(|(_, one)| **one);
                let first = first.filter(|(_, (at, _))| *at <= end).map(|(place, _)| place);
                let expected = first.map(|place| all.swap_remove(place).1);
                assert_eq!(queue.next_until(end), expected);
            }
        }
    }
}
