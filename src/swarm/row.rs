//! Things with numbers in a row: each is found at once by its number, few are missing in between.

use std::collections::VecDeque;

/// Small things by number. It takes a place for each number from the least to the greatest, of
/// the size of a thing: whoever adds takes care that they do not lie far apart.
#[derive(Debug)]
pub struct Row<T> {
    /// The number of the first place.
    first: u64,
    places: VecDeque<Option<T>>,
    /// Places that are taken.
    len: usize,
}

impl<T> Default for Row<T> {
    fn default() -> Row<T> {
        Row { first: 0, places: VecDeque::new(), len: 0 }
    }
}

impl<T> Row<T> {
    fn place(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    /// What has this number.
    #[must_use]
    pub fn get(&self, number: u64) -> Option<&T> {
        self.places.get(self.place(number)?)?.as_ref()
    }

    /// As [`Row::get`], to change it.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        let place = self.place(number)?;
        self.places.get_mut(place)?.as_mut()
    }

    /// What has this number, made if there is nothing.
    pub fn get_or_insert_with(&mut self, number: u64, make: impl FnOnce() -> T) -> &mut T {
        if self.places.is_empty() {
            self.first = number;
        }
        while number < self.first {
            self.places.push_front(None);
            self.first -= 1;
        }
        let place = (number - self.first) as usize;
        if place >= self.places.len() {
            self.places.resize_with(place + 1, || None);
        }
        let place = &mut self.places[place];
        self.len += usize::from(place.is_none());
        place.get_or_insert_with(make)
    }

    /// All from `number` on, in their order.
    pub fn from(&self, number: u64) -> impl DoubleEndedIterator<Item = (u64, &T)> {
        let first = self.first.max(number);
        let skipped = usize::try_from(first - self.first).unwrap_or(usize::MAX);
        let places = self.places.range(skipped.min(self.places.len())..);
        let numbered = places.enumerate().map(move |(at, place)| (first + at as u64, place));
        numbered.filter_map(|(number, place)| Some((number, place.as_ref()?)))
    }

    /// All, in their order, to change them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        let numbered = (self.first..).zip(&mut self.places);
        numbered.filter_map(|(number, place)| Some((number, place.as_mut()?)))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all below `number`.
    pub fn forget_below(&mut self, number: u64) {
        while self.first < number
            && let Some(place) = self.places.pop_front()
        {
            self.len -= usize::from(place.is_some());
            self.first += 1;
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.places.clear();
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn it_does_what_a_map_does() {
        let (mut row, mut map) = (Row::default(), BTreeMap::new());
        let mut rng = fastrand::Rng::with_seed(7);
        for step in 0..2_000_u64 {
            let number = 100 + step / 10 + rng.u64(..20);
            assert_eq!(row.get(number), map.get(&number));
            assert_eq!(row.get_mut(number), map.get_mut(&number));
            match rng.u8(..4) {
                0 => {
                    row.forget_below(number - 15);
                    map = map.split_off(&(number - 15));
                }
                _ => {
                    let new = map.entry(number).or_insert(step);
                    assert_eq!(row.get_or_insert_with(number, || step), new);
                }
            }
            assert!(row.from(number).eq(map.range(number..).map(|(number, one)| (*number, one))));
            assert_eq!((row.len(), row.is_empty()), (map.len(), map.is_empty()));
            let all = row.iter_mut().map(|(number, one)| (number, *one));
            assert!(all.eq(map.iter().map(|(number, one)| (*number, *one))));
            assert!(row.from(0).rev().map(|(number, _)| number).eq(map.keys().rev().copied()));
        }
        row.clear();
        assert_eq!((row.get(300), row.from(0).count()), (None, 0));
    }
}
