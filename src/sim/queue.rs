//! What is going to happen, in the order in which it will: virtual time, and for events of one
//! instant the order in which they were planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::base::time::Mono;

/// Events to come.
#[derive(Debug)]
pub struct Queue<E> {
    /// Small things to sort: the events lie still.
    heap: BinaryHeap<Reverse<Planned>>,
    events: Vec<Option<E>>,
    free: Vec<u32>,
    planned: u64,
    now: Mono,
}

/// When an event happens, its turn among those of one instant, and where it lies.
type Planned = (Mono, u64, u32);

impl<E> Default for Queue<E> {
    fn default() -> Queue<E> {
        let (heap, events, free) = (BinaryHeap::new(), Vec::new(), Vec::new());
        Queue { heap, events, free, planned: 0, now: Mono::ZERO }
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
        self.heap.push(Reverse((at.max(self.now), self.planned, place)));
    }

    /// The next event, if it happens until `end`. Time moves on to it.
    pub fn next_until(&mut self, end: Mono) -> Option<E> {
        if self.heap.peek().is_none_or(|Reverse((at, ..))| *at > end) {
            self.now = self.now.max(end);
            return None;
        }
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.now = at;
        self.free.push(place);
        self.events[place as usize].take()
    }
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
}
