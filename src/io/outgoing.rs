//! Mail that waits because another shard's mailbox is full.

use std::collections::VecDeque;

use crate::base::ids::ShardId;
use crate::io::mailbox::Post;
use crate::metrics::cells::Cells;
use crate::metrics::table::Cell;

/// One shard's undelivered mail, in order.
///
/// While there is any, the driver asks its machine for nothing more, so the list never holds
/// more than one outbox; but it goes on with everything else, its own inbox above all: two
/// shards that have filled each other's mailboxes both empty them.
#[derive(Debug)]
pub(super) struct Outgoing<M> {
    list: VecDeque<(ShardId, M)>,
    /// Targets that had no room in this attempt: later mail to them must not overtake.
    full: Box<[bool]>,
}

impl<M: Send> Outgoing<M> {
    /// An empty list for as many as one outbox holds. Its only allocations.
    pub fn new(shards: usize, capacity: usize) -> Outgoing<M> {
        Outgoing { list: VecDeque::with_capacity(capacity), full: vec![false; shards].into() }
    }

    /// Whether everything was delivered.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Sends now, or as soon as there is room.
    pub fn send(&mut self, post: &Post<M>, from: ShardId, to: ShardId, mail: M, cells: &Cells) {
        // Behind mail that waits for the same mailbox.
        let behind = self.list.iter().any(|(shard, _)| *shard == to);
        let mail = if behind { Err(mail) } else { post.deliver(from, to, mail) };
        if let Err(mail) = mail {
            cells.add(Cell::MailRetries, 1);
            self.list.push_back((to, mail));
        }
    }

    /// Tries again, keeping the order for each mailbox. What remains will be announced by a
    /// wake-up, or is mail to itself, which the shard finds in its own inbox before it sleeps.
    pub fn retry(&mut self, post: &Post<M>, from: ShardId) {
        self.full.fill(false);
        for _ in 0..self.list.len() {
            let Some((to, mail)) = self.list.pop_front() else { break };
            let full = &mut self.full[usize::from(to.0)];
            let mail = if *full { Err(mail) } else { Self::try_twice(post, from, to, mail) };
            if let Err(mail) = mail {
                *full = true;
                self.list.push_back((to, mail));
            }
        }
    }

    fn try_twice(post: &Post<M>, from: ShardId, to: ShardId, mail: M) -> Result<(), M> {
        post.deliver(from, to, mail).or_else(|mail| {
            post.wait_for_room(from, to);
            post.deliver(from, to, mail)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::mailbox::Phase;

    #[test]
    fn order_is_kept_for_each_mailbox_and_a_full_one_delays_no_other() {
        let (me, full, free) = (ShardId(0), ShardId(1), ShardId(2));
        let post: Post<u32> = Post::new(3, 1, 2).unwrap();
        let cells = Cells::default();
        let mut out = Outgoing::new(3, 8);
        for mail in 0..5 {
            out.send(&post, me, full, mail, &cells);
        }
        out.send(&post, me, free, 100, &cells);
        assert_eq!(cells.get(Cell::MailRetries), 3);
        let mut got = Vec::new();
        post.receive(free, |mail| got.push(mail));
        assert_eq!(got, [100]);
        got.clear();
        out.retry(&post, me);
        assert!(post.fall_asleep(me, Phase::Running));
        post.receive(full, |mail| got.push(mail));
        let rung = rustix::io::read(post.bell(me), &mut [0; 8]);
        assert_eq!(rung, Ok(8), "woken when there is room");
        while got.len() < 5 {
            out.retry(&post, me);
            post.receive(full, |mail| got.push(mail));
        }
        assert_eq!(got, [0, 1, 2, 3, 4]);
        assert!(out.is_empty());
    }
}
