//! What is going to happen, in the order in which it will: virtual time, and for events of one
//! instant the order in which they were planned.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::base::time::Mono;

/// Events to come.
#[derive(Debug)]
pub struct Queue<E> {
    heap: BinaryHeap<Planned<E>>,
    planned: u64,
    now: Mono,
}

#[derive(Debug)]
struct Planned<E> {
    at: Mono,
    order: u64,
    event: E,
}

impl<E> Default for Queue<E> {
    fn default() -> Queue<E> {
        Queue { heap: BinaryHeap::new(), planned: 0, now: Mono::ZERO }
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
        self.heap.push(Planned { at: at.max(self.now), order: self.planned, event });
    }

    /// The next event, if it happens until `end`. Time moves on to it.
    pub fn next_until(&mut self, end: Mono) -> Option<E> {
        if self.heap.peek().is_none_or(|next| next.at > end) {
            self.now = self.now.max(end);
            return None;
        }
        let Planned { at, event, .. } = self.heap.pop()?;
        self.now = at;
        Some(event)
    }
}

impl<E> PartialEq for Planned<E> {
    fn eq(&self, other: &Planned<E>) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Planned<E> {}

impl<E> PartialOrd for Planned<E> {
    fn partial_cmp(&self, other: &Planned<E>) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Planned<E> {
    /// The heap gives the greatest first: here the earliest is.
    fn cmp(&self, other: &Planned<E>) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
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
