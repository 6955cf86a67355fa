//! What must be true of a driver and a card: decisions on plain numbers.

use std::fmt;

use crate::backend::cuda::kernels;

/// Major and minor: of CUDA, or of a card's compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// As the driver tells it: 13000 for 13.0.
    pub fn of_driver(number: i32) -> Self {
        let number = number.max(0) as u32;
        Self(number / 1000, number % 1000 / 10)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The driver is asked for nothing that is younger than this CUDA version.
const CALLS: Version = Version(12, 5);

/// The oldest card that the kernels can be compiled for: they use `cp.async` and bf16 tensor cores.
const OLDEST_CARD: Version = Version(8, 0);

/// What the kernels in this program were compiled for.
#[derive(Clone, Copy, Debug)]
pub struct Built<'a> {
    /// The compiler's version.
    pub toolkit: Version,
    /// Machine code: `80`, `90a` …
    pub targets: &'a [&'a str],
    /// The target whose PTX is there too; empty for none.
    pub ptx: &'a str,
}

impl Built<'static> {
    /// This program.
    pub const THIS: Self =
        Self { toolkit: Version(kernels::TOOLKIT.0, kernels::TOOLKIT.1), targets: kernels::TARGETS, ptx: kernels::PTX };
}

impl Built<'_> {
    /// The driver's CUDA version that this program needs. Machine code runs on every driver of its toolkit's
    /// major version, and on later ones.
    pub fn needed_driver(&self) -> Version {
        Version(self.toolkit.0, 0).max(CALLS)
    }

    /// The target whose code a card of this `capability` runs, or why it runs none.
    ///
    /// Machine code runs on its own card and on later ones of the same major number; with a letter behind
    /// the number on its own alone. PTX runs on its own card and all later ones.
    pub fn target(&self, capability: Version, driver: Version) -> Result<Version, String> {
        if capability < OLDEST_CARD {
            return Err(format!("it has compute capability {capability}; {OLDEST_CARD} is the least (Ampere)"));
        }
        let runs = |target: &&str| match target.strip_suffix(|c: char| c.is_ascii_lowercase()) {
            Some(number) => parse(number).filter(|&target| target == capability),
            None => parse(target).filter(|target| target.0 == capability.0 && target.1 <= capability.1),
        };
        if let Some(target) = self.targets.iter().filter_map(runs).max() {
            return Ok(target);
        }
        let built = format!("this program's kernels are for {}", self.targets.join(", "));
        let Some(ptx) = parse(self.ptx).filter(|&ptx| ptx <= capability) else {
            return Err(format!("it has compute capability {capability}, {built}"));
        };
        // The driver compiles PTX of its own CUDA version and of earlier ones.
        match driver < self.toolkit {
            true => Err(format!(
                "it has compute capability {capability}, {built}, and to compile them anew takes a driver for \
                 CUDA {}, found one for {driver}",
                self.toolkit
            )),
            false => Ok(ptx),
        }
    }
}

/// Whether kernels of this `target` wait for the launch before theirs: others must not begin before it has ended.
pub fn waits(target: Version) -> bool {
    /// The first target with programmatic dependent launch.
    const PROGRAMMATIC: Version = Version(9, 0);
    target >= PROGRAMMATIC
}

/// `90` is 9.0, `100` is 10.0; `None` for anything else.
fn parse(target: &str) -> Option<Version> {
    target.parse().ok().map(|number: u32| Version(number / 10, number % 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Built<'_> = Built { toolkit: Version(13, 0), targets: &["80", "86", "89", "90a", "100"], ptx: "100" };
    const DRIVER: Version = Version(13, 0);

    #[test]
    fn versions_read_as_the_driver_writes_them() {
        assert_eq!(Version::of_driver(13000), Version(13, 0));
        assert_eq!(Version::of_driver(12080), Version(12, 8));
        assert_eq!(Version::of_driver(-1), Version(0, 0));
        assert_eq!(Version(12, 8).to_string(), "12.8");
        assert!(Version(9, 0) < Version(10, 0) && Version(12, 10) > Version(12, 9));
    }

    #[test]
    fn the_driver_must_be_of_the_toolkits_major_version() {
        assert_eq!(ALL.needed_driver(), Version(13, 0));
        assert_eq!(Built { toolkit: Version(13, 2), ..ALL }.needed_driver(), Version(13, 0));
        assert_eq!(Built { toolkit: Version(12, 0), ..ALL }.needed_driver(), CALLS);
    }

    #[test]
    fn cards_that_have_code_run_it() {
        for ((major, minor), target) in [
            ((8, 0), (8, 0)),
            ((8, 6), (8, 6)),
            ((8, 7), (8, 6)),
            ((8, 9), (8, 9)),
            ((9, 0), (9, 0)),
            ((10, 0), (10, 0)),
            ((10, 3), (10, 0)),
            ((12, 0), (10, 0)),
            ((12, 1), (10, 0)),
        ] {
            let target = Version(target.0, target.1);
            assert_eq!(ALL.target(Version(major, minor), DRIVER), Ok(target), "{major}.{minor}");
            assert_eq!(waits(target), major >= 9, "{major}.{minor}");
        }
    }

    #[test]
    fn code_that_cannot_wait_is_known_on_a_card_that_could() {
        let ampere = Built { targets: &["80"], ptx: "80", ..ALL };
        let target = ampere.target(Version(9, 0), DRIVER).unwrap();
        assert_eq!(target, Version(8, 0));
        assert!(!waits(target));
    }

    #[test]
    fn cards_without_code_are_told_what_there_is() {
        let old = ALL.target(Version(7, 5), DRIVER).unwrap_err();
        assert!(old.contains("7.5") && old.contains("8.0"), "{old}");
        let hopper = Built { targets: &["90a"], ptx: "90a", ..ALL };
        assert_eq!(hopper.target(Version(9, 0), DRIVER), Ok(Version(9, 0)));
        for other in [Version(8, 9), Version(10, 0), Version(12, 0)] {
            let why = hopper.target(other, DRIVER).unwrap_err();
            assert!(why.contains(&other.to_string()) && why.contains("90a"), "{why}");
        }
        let ampere = Built { targets: &["86"], ptx: "86", ..ALL };
        assert!(ampere.target(Version(8, 0), DRIVER).is_err(), "an earlier card of the same major number");
        assert_eq!(ampere.target(Version(9, 0), DRIVER), Ok(Version(8, 6)), "PTX runs on later cards");
    }

    #[test]
    fn ptx_needs_a_driver_as_young_as_the_toolkit() {
        let younger = Built { toolkit: Version(13, 1), ..ALL };
        assert_eq!(younger.target(Version(9, 0), DRIVER), Ok(Version(9, 0)), "machine code does not");
        let why = younger.target(Version(12, 0), DRIVER).unwrap_err();
        assert!(why.contains("13.1") && why.contains("13.0"), "{why}");
    }
}
