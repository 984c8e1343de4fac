//! Where a name is at home: on the two runners of the run that rendezvous hashing chooses (Thaler and Ravishankar, "Using name-based mappings to increase hit
//! rates", 1998). All who know the same members choose the same, and one that comes or goes moves only what is at home on it. Not here: who is a member.

use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use super::digest::Hash;
use super::role::Role;

/// So many runners have each name: one may leave without a word.
pub const HOMES: usize = 2;

/// The homes of a name's hash, the first one first; fewer where there are fewer members. Members are all different.
pub fn homes(name: &Hash, members: impl IntoIterator<Item = Role>) -> Vec<Role> {
    let mut best: Vec<(u64, Role)> = Vec::with_capacity(HOMES + 1);
    for role in members {
        let weight = weight(name, role);
        let at = best.partition_point(|known| *known > (weight, role));
        best.insert(at, (weight, role));
        best.truncate(HOMES);
    }
    best.into_iter().map(|(_, role)| role).collect()
}

fn weight(name: &Hash, role: Role) -> u64 {
    let [low, high] = [0, 8].map(|at| u64::from_le_bytes(*name[at..].first_chunk().unwrap_or(&[0; 8])));
    let mut hasher = SipHasher24::new_with_keys(low, high);
    hasher.write_u16(role.number());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn members(numbers: &BTreeSet<u16>) -> Vec<Role> {
        numbers.iter().filter_map(|number| Role::from_number(*number)).collect()
    }

    /// What it has to be: all members by weight, the first two of them.
    fn model(name: &Hash, members: &[Role]) -> Vec<Role> {
        let mut all: Vec<_> = members.iter().map(|role| (weight(name, *role), *role)).collect();
        all.sort();
        all.into_iter().rev().take(HOMES).map(|(_, role)| role).collect()
    }

    #[test]
    fn names_spread_evenly() {
        let members = members(&(0..20).collect());
        let mut counts = [0_u32; 20];
        for number in 0..20_000_u64 {
            let mut name = Hash::default();
            name[..8].copy_from_slice(&number.to_le_bytes());
            homes(&name, members.iter().copied()).iter().for_each(|role| counts[usize::from(role.number())] += 1);
        }

        assert!(counts.iter().all(|count| (1850..2150).contains(count)), "{counts:?}");
    }

    #[test]
    fn who_is_alone_is_the_home() {
        assert_eq!(homes(&[7; 32], [Role::Primary]), [Role::Primary]);
        assert_eq!(homes(&[7; 32], []), []);
    }

    proptest! {
        #[test]
        fn the_homes_are_the_two_heaviest(name: Hash, numbers in proptest::collection::btree_set(0_u16..300, 0..40)) {
            let members = members(&numbers);

            prop_assert_eq!(homes(&name, members.iter().copied()), model(&name, &members));
            prop_assert_eq!(homes(&name, members.iter().rev().copied()), model(&name, &members), "in any order");
        }

        #[test]
        fn who_leaves_moves_only_what_was_at_home_there(
            name: Hash,
            numbers in proptest::collection::btree_set(0_u16..300, 3..40),
            at: prop::sample::Index,
        ) {
            let members = members(&numbers);
            let gone = members[at.index(members.len())];
            let before = homes(&name, members.iter().copied());
            let after = homes(&name, members.iter().copied().filter(|role| *role != gone));

            let kept: Vec<_> = before.iter().filter(|role| **role != gone).copied().collect();
            prop_assert_eq!(&after[..kept.len()], &kept[..]);
        }
    }
}
