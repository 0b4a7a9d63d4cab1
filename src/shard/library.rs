//! The streams of which this shard sends segments, and the playlists that it has written.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::registry::stream::Stream;
use crate::ring::reader::Reader;

/// One stream's window, read by all downloads of its segments on this shard.
pub(super) struct Book {
    pub(super) stream: Arc<Stream>,
    pub(super) reader: RefCell<Reader>,
    page: RefCell<Option<Page>>,
}

/// The playlist at one state of the window.
struct Page {
    marks: u64,
    tail: u64,
    text: Bytes,
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Book({})", self.stream.name)
    }
}

/// The books in use, and those of streams that go on. At most one per stream.
#[derive(Debug, Default)]
pub(super) struct Library {
    books: Vec<Rc<Book>>,
}

impl Library {
    /// The book of `stream`.
    pub(super) fn open(&mut self, stream: &Arc<Stream>) -> Rc<Book> {
        let same = |book: &&Rc<Book>| Arc::ptr_eq(&book.stream, stream);
        if let Some(book) = self.books.iter().find(same) {
            return Rc::clone(book);
        }
        let book = Rc::new(Book {
            stream: Arc::clone(stream),
            reader: RefCell::new(Reader::new(Arc::clone(&stream.window))),
            page: RefCell::default(),
        });
        self.books.push(Rc::clone(&book));
        book
    }

    /// After a round: gives back the pins that the round needed, and closes the books of streams
    /// that are over.
    pub(super) fn release(&mut self) {
        self.books.retain(|book| {
            book.reader.borrow_mut().release();
            !book.stream.ended()
        });
    }
}

impl Book {
    /// The playlist when there were so many marks and the window began at `tail`. Written by
    /// `write` only when something has changed: a crowd that asks every second costs one text.
    pub(super) fn playlist(&self, marks: u64, tail: u64, write: impl FnOnce() -> Bytes) -> Bytes {
        let mut page = self.page.borrow_mut();
        match &*page {
            Some(page) if page.marks == marks && page.tail == tail => page.text.clone(),
            _ => {
                let text = write();
                *page = Some(Page { marks, tail, text: text.clone() });
                text
            }
        }
    }
}
