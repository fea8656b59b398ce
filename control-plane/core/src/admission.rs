//! Who may try again: a place from which refusals come has to wait after a burst of them.

use crate::bucket::Bucket;
use shared::Timestamp;
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
};

/// Refusals of one place that are answered at once.
const BURST: u64 = 100;
/// Refusals of one place a second after that.
const REFUSALS_PER_S: u64 = 5;
/// Places that are remembered; with more than that at one time, those without room share one bucket.
const PLACES_MAX: usize = 4096;

/// Counts refusals by where they come from. Tries that succeed cost nothing.
#[derive(Debug)]
pub struct Admission {
    places: HashMap<IpAddr, Bucket>,
    others: Bucket,
}

impl Default for Admission {
    fn default() -> Self {
        Self { places: HashMap::new(), others: bucket() }
    }
}

fn bucket() -> Bucket {
    Bucket::new(REFUSALS_PER_S, BURST)
}

/// All addresses of one IPv6 network are one place: whoever has one has them all.
pub fn place(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

impl Admission {
    /// May `peer` try? What it takes is given back with [`Admission::succeeded`].
    pub fn begin(&mut self, peer: IpAddr, now: Timestamp) -> bool {
        let bucket = self.bucket_of(place(peer), now);
        bucket.fill(now);
        bucket.take(1)
    }

    /// The try that was begun was not refused.
    pub fn succeeded(&mut self, peer: IpAddr) {
        match self.places.get_mut(&place(peer)) {
            Some(bucket) => bucket.give_back(1),
            None => self.others.give_back(1),
        }
    }

    fn bucket_of(&mut self, place: IpAddr, now: Timestamp) -> &mut Bucket {
        if !self.places.contains_key(&place) && self.places.len() >= PLACES_MAX {
            self.places.retain(|_, bucket| {
                bucket.fill(now);
                !bucket.is_full()
            });
            if self.places.len() >= PLACES_MAX {
                return &mut self.others;
            }
        }
        self.places.entry(place).or_insert_with(bucket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(number).into()
    }

    #[test]
    fn after_a_burst_of_refusals_a_place_has_to_wait_and_the_others_do_not() {
        let mut admission = Admission::default();
        let tried = (0..1000).filter(|_| admission.begin(peer(1), Timestamp(0))).count();
        assert_eq!(tried as u64, BURST);
        assert!(admission.begin(peer(2), Timestamp(0)));
        assert!(!admission.begin(peer(1), Timestamp(199)));
        assert!(admission.begin(peer(1), Timestamp(200)));
    }

    #[test]
    fn a_thousand_devices_behind_one_address_enrol_at_once() {
        let mut admission = Admission::default();
        for _ in 0..1000 {
            assert!(admission.begin(peer(1), Timestamp(0)));
            admission.succeeded(peer(1));
        }
    }

    #[test]
    fn an_ipv6_network_is_one_place_and_a_mapped_address_is_that_of_its_machine() {
        let mut admission = Admission::default();
        let six = |last: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last]);
        let tried = (0..1000).filter(|last| admission.begin(six(*last), Timestamp(0))).count();
        assert_eq!(tried as u64, BURST);
        let mapped = IpAddr::V6(std::net::Ipv4Addr::LOCALHOST.to_ipv6_mapped());
        assert_eq!(place(mapped), IpAddr::from([127, 0, 0, 1]));
    }

    #[test]
    fn remembers_a_bounded_number_of_places_and_forgets_those_that_have_calmed_down() {
        let mut admission = Admission::default();
        let many = u32::try_from(PLACES_MAX).unwrap() + 1000;
        let tried = (0..many).filter(|number| admission.begin(peer(*number), Timestamp(0))).count();
        assert_eq!(tried, PLACES_MAX + usize::try_from(BURST).unwrap());
        assert!(admission.begin(peer(many), Timestamp(1000)));
        assert!(admission.places.len() < 10);
    }
}
