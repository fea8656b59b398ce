//! A fixed number of things that one thread uses at a time: a caller waits for one rather than making another.

use std::{
    ops::{Deref, DerefMut},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

#[derive(Debug)]
pub(crate) struct Pool<T> {
    idle: Mutex<Vec<T>>,
    returned: Condvar,
}

impl<T> Pool<T> {
    /// `items` is not empty: who takes from an empty pool waits for ever.
    pub(crate) fn new(items: Vec<T>) -> Self {
        Self { idle: Mutex::new(items), returned: Condvar::new() }
    }

    /// Takes one, after waiting for it where all are in use. It goes back when the guard is dropped, however the
    /// work with it ended.
    pub(crate) fn take(&self) -> Taken<'_, T> {
        let mut idle = self.idle();
        loop {
            match idle.pop() {
                Some(item) => return Taken { pool: self, item: Some(item) },
                None => idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<T>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Taken<'p, T> {
    pool: &'p Pool<T>,
    item: Option<T>,
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.item.as_ref().unwrap_or_else(|| unreachable!("only drop takes it out"))
    }
}

impl<T> DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.item.as_mut().unwrap_or_else(|| unreachable!("only drop takes it out"))
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        if let Some(item) = self.item.take() {
            self.pool.idle().push(item);
            self.pool.returned.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn what_was_taken_comes_back_also_after_a_panic() {
        let pool = Pool::new(vec![1]);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut taken = pool.take();
            *taken = 2;
            panic!("as asked");
        }));
        assert!(panicked.is_err());
        assert_eq!(*pool.take(), 2);
    }

    #[test]
    fn more_callers_than_items_wait_for_their_turn() {
        let pool = Pool::new(vec![0, 0]);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        *pool.take() += 1;
                    }
                });
            }
        });
        let (first, second) = (pool.take(), pool.take());
        assert_eq!(*first + *second, 800);
    }
}
