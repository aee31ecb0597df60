//! Circles of files that import each other.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::is_one_codec;
use super::uses::Arrow;

/// Returns the circles, each as the files that can be reached from each other.
pub(super) fn circles(arrows: &[Arrow]) -> Vec<Vec<String>> {
    let mut targets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Arrow { from, to, .. } in arrows {
        targets.entry(from).or_default().insert(to);
    }
    let reachable: BTreeMap<&str, BTreeSet<&str>> =
        targets.keys().map(|file| (*file, reachable_from(file, &targets))).collect();
    let mut circles = BTreeSet::new();
    for (file, others) in &reachable {
        let back = |other: &&&str| reachable.get(**other).is_some_and(|found| found.contains(file));
        let circle: Vec<String> =
            others.iter().filter(back).map(|&other| other.to_owned()).collect();
        if circle.len() > 1 && !is_one_codec(&circle) {
            circles.insert(circle);
        }
    }
    circles.into_iter().collect()
}

fn reachable_from<'a>(
    file: &'a str,
    targets: &BTreeMap<&'a str, BTreeSet<&'a str>>,
) -> BTreeSet<&'a str> {
    let (mut found, mut next) = (BTreeSet::new(), vec![file]);
    while let Some(file) = next.pop() {
        let new = targets.get(file).into_iter().flatten().filter(|target| found.insert(**target));
        next.extend(new);
    }
    found
}
