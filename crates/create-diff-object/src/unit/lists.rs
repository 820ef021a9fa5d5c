//! Many short lists in one table.

use std::ops::Index;

/// A list for each of a number of owners, all in one allocation.
#[derive(Clone, Debug)]
pub(crate) struct Lists<T> {
    /// Where each owner's list begins; one more than there are owners.
    starts: Vec<u32>,
    items: Vec<T>,
}

impl<T: Copy> Lists<T> {
    /// No lists, for want of owners.
    pub(crate) fn none() -> Lists<T> {
        Lists { starts: Vec::new(), items: Vec::new() }
    }

    /// Sorts items by their owner, all below `owners`; each owner's items keep their order.
    ///
    /// `each` passes on owners and items. It is asked twice, and has to give the same both times.
    pub(crate) fn new(owners: usize, each: impl Fn(&mut dyn FnMut(usize, T))) -> Lists<T> {
        let mut starts = vec![0; owners + 1];
        let mut first = None;
        each(&mut |owner, item| {
            first = first.or(Some(item));
            starts[owner + 1] += 1;
        });
        for owner in 0..owners {
            starts[owner + 1] += starts[owner];
        }
        let Some(first) = first else { return Lists { starts, items: Vec::new() } };
        // Every place is written below.
        let mut sorted = vec![first; starts[owners] as usize];
        each(&mut |owner, item| {
            // Until the end of this pass, an owner's start is where its next item goes.
            sorted[starts[owner] as usize] = item;
            starts[owner] += 1;
        });
        starts.rotate_right(1);
        starts[0] = 0;
        Lists { starts, items: sorted }
    }
}

/// The list of an owner; empty where there are no lists yet.
impl<T> Index<usize> for Lists<T> {
    type Output = [T];

    fn index(&self, owner: usize) -> &[T] {
        match (self.starts.get(owner), self.starts.get(owner + 1)) {
            (Some(&from), Some(&to)) => &self.items[from as usize..to as usize],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_go_to_their_owners_in_order() {
        let items = [(2, 'a'), (0, 'b'), (2, 'c'), (3, 'd'), (0, 'e')];
        let lists = Lists::new(5, |put| items.iter().for_each(|&(owner, item)| put(owner, item)));
        let all: Vec<String> = (0..6).map(|owner| lists[owner].iter().collect()).collect();
        assert_eq!(all, ["be", "", "ac", "d", "", ""]);
        assert!(Lists::<char>::new(3, |_| {})[2].is_empty());
        assert!(Lists::<char>::none()[0].is_empty());
    }
}
