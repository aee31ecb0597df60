//! The fields of a cookie that say how the user logged in, and which factors (such as the password)
//! the user has proved in this session, and when.
//!
//! In the session cookie, the fields are `classes: u8, n: u8, (factor: u8, time: u32)×n`, and n is
//! at most 8. The remember cookie has only `classes: u8`, because a restored login is not fresh: in
//! the restored session, the user has proved no factor.

use super::body::Fields;

/// The flag of a login of an inactive user.
pub(crate) const FORCED_FLAG: u8 = 1;
/// The flag of a session cookie that was set together with a remember cookie.
pub(crate) const REMEMBERED_FLAG: u8 = 2;

/// A cookie holds at most this many proofs.
const MAX_PROOFS: u8 = 8;

/// The code of the password, the only factor that this version knows.
const PASSWORD_FACTOR: u8 = 1;

/// How the user logged in. Both cookies of a login contain it, so a restored login keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LoginOrigin {
    /// Whether the application has logged the user in although the user was inactive.
    pub(crate) is_forced: bool,
    /// How many classes of factors the user has proved. The classes are knowledge, possession and
    /// inherence.
    pub(crate) factor_classes: u8,
}

impl LoginOrigin {
    /// The login of an active user with a password.
    pub(crate) const PASSWORD: Self = Self { is_forced: false, factor_classes: 1 };

    pub(crate) fn flags(self) -> u8 {
        if self.is_forced { FORCED_FLAG } else { 0 }
    }

    /// Reads the number of classes. `flags` are the flags of the cookie, which come before it.
    pub(crate) fn read(flags: u8, fields: &mut Fields<'_>) -> Option<Self> {
        Some(Self { is_forced: flags & FORCED_FLAG != 0, factor_classes: fields.u8()? })
    }
}

/// Returns the flags of a session cookie.
pub(crate) fn session_flags(login_origin: LoginOrigin, is_remembered: bool) -> u8 {
    login_origin.flags() | if is_remembered { REMEMBERED_FLAG } else { 0 }
}

/// When the user last proved each factor in this session, in seconds since 1970. There are no
/// proofs if the remember cookie has restored the login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proofs {
    password: Option<u32>,
    /// The factors that only a newer version knows. Hardly any cookie has such factors, so they are
    /// boxed.
    others: Option<Box<OtherProofs>>,
}

/// The code of each other factor, and when it was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
struct OtherProofs(Vec<(u8, u32)>);

impl Proofs {
    /// Returns the proofs of a user who has given the password at this time.
    pub(crate) fn password(at: u32) -> Self {
        Self { password: Some(at), others: None }
    }

    fn others(&self) -> &[(u8, u32)] {
        self.others.as_ref().map_or(&[], |others| others.0.as_slice())
    }

    /// Returns when the user last proved any factor. If this is `None`, the login is not fresh.
    pub(crate) fn newest(&self) -> Option<u32> {
        match &self.others {
            None => self.password,
            Some(others) => others.0.iter().map(|(_, time)| *time).max().max(self.password),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.password.is_none() && self.others.is_none()
    }

    fn count(&self) -> usize {
        usize::from(self.password.is_some()) + self.others().len()
    }

    /// Returns how many bytes the proofs and their number have in a cookie.
    pub(crate) fn encoded_len(&self) -> usize {
        1 + 5 * self.count()
    }

    pub(crate) fn write(&self, body: &mut Vec<u8>) {
        body.push(self.count() as u8);
        let password = self.password.map(|time| (PASSWORD_FACTOR, time));
        for (factor, time) in password.iter().chain(self.others()) {
            body.push(*factor);
            body.extend(time.to_be_bytes());
        }
    }

    /// Reads the proofs. Most cookies have only one, of the password, so this case is read first.
    #[inline(always)]
    pub(crate) fn read(fields: &mut Fields<'_>) -> Option<Self> {
        match fields.0.split_first_chunk::<6>() {
            Some(([1, PASSWORD_FACTOR, time @ ..], rest)) => {
                fields.0 = rest;
                Some(Self::password(u32::from_be_bytes(*time)))
            }
            _ => Self::read_all(fields),
        }
    }

    #[cold]
    fn read_all(fields: &mut Fields<'_>) -> Option<Self> {
        let (mut proofs, mut others) = (Self::default(), Vec::new());
        let count = fields.u8()?;
        if count > MAX_PROOFS {
            return None;
        }
        for _ in 0..count {
            match (fields.u8()?, fields.u32()?) {
                (PASSWORD_FACTOR, time) => proofs.password = Some(time),
                other => others.push(other),
            }
        }
        proofs.others = (!others.is_empty()).then(|| Box::new(OtherProofs(others)));
        Some(proofs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_of_unknown_factors_are_kept_and_the_newest_proof_counts() {
        let eight: Vec<u8> = (1..=8).flat_map(|factor| [factor, 0, 0, 1, factor]).collect();
        for (body, newest) in [
            (vec![0], None),
            (vec![1, 1, 0, 0, 1, 0], Some(256)),
            (vec![1, 7, 0, 0, 1, 0], Some(256)),
            (vec![2, 1, 0, 0, 0, 3, 7, 0, 0, 0, 9], Some(9)),
            ([&[8][..], &eight].concat(), Some(264)),
        ] {
            let proofs = Proofs::read(&mut Fields(&body)).unwrap();
            assert_eq!((proofs.newest(), proofs.encoded_len()), (newest, body.len()));
            let mut written = Vec::new();
            proofs.write(&mut written);
            assert_eq!(written, body);
        }
        assert_eq!(Proofs::read(&mut Fields(&[1, 1, 0, 0, 1, 0])), Some(Proofs::password(256)));
        let nine = [&[9][..], &eight, &[9, 0, 0, 0, 1]].concat();
        for bad in [&[][..], &[1], &[1, 1, 0, 0, 1], &[2, 1, 0, 0, 1, 0], &nine] {
            assert_eq!(Proofs::read(&mut Fields(bad)), None, "{bad:?}");
        }
    }
}
