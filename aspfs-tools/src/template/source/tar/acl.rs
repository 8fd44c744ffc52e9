//! POSIX ACLs as archives write them: text, entry by entry (acl(5), "short text form"), into what the kernel has as an extended
//! attribute (include/uapi/linux/posix_acl_xattr.h).

/// Most entries of one list.
const ENTRIES_MAX: usize = vefs::limits::ACL_ENTRIES_MAX;

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NOBODY: u32 = u32::MAX;

/// Turns the text into an attribute's value. Whether the list is complete is for the receiver to check.
///
/// # Errors
/// What is wrong, in words.
pub fn parse(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut entries = Vec::new();
    for part in text.split(|b| matches!(b, b',' | b'\n')) {
        // A comment says what the mask leaves.
        let part = part.split(|b| *b == b'#').next().unwrap_or_default().trim_ascii();
        if !part.is_empty() {
            entries.push(entry(part)?);
        }
        if entries.len() > ENTRIES_MAX {
            return Err(format!("its ACL has more than {ENTRIES_MAX} entries"));
        }
    }
    entries.sort_by_key(|(tag, _, id)| (*tag, *id));
    let mut out = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        out.extend_from_slice(&tag.to_le_bytes());
        out.extend_from_slice(&perm.to_le_bytes());
        out.extend_from_slice(&id.to_le_bytes());
    }
    Ok(out)
}

/// `user::rwx`, `group:5:r--`, `group:staff:r--:50`, `mask::rw-`, `other::---`.
fn entry(part: &[u8]) -> Result<(u16, u16, u32), String> {
    let bad = || format!("its ACL entry {:?} is not valid", String::from_utf8_lossy(part));
    let fields: Vec<&[u8]> = part.split(|b| *b == b':').collect();
    let (kind, who, perms, number) = match fields[..] {
        [kind, who, perms] => (kind, who, perms, None),
        [kind, who, perms, number] => (kind, who, perms, Some(number)),
        _ => return Err(bad()),
    };
    let named = !who.is_empty();
    let tag = match (kind, named) {
        (b"user" | b"u", false) => USER_OBJ,
        (b"user" | b"u", true) => USER,
        (b"group" | b"g", false) => GROUP_OBJ,
        (b"group" | b"g", true) => GROUP,
        (b"mask" | b"m", false) => MASK,
        (b"other" | b"o", false) => OTHER,
        _ => return Err(bad()),
    };
    let mut perm = 0;
    for b in perms.trim_ascii() {
        perm |= match b {
            b'r' => 4,
            b'w' => 2,
            b'x' => 1,
            b'-' => 0,
            _ => return Err(bad()),
        };
    }
    let id = match named {
        false => NOBODY,
        true => {
            let number = super::pax::number(number.unwrap_or(who)).and_then(|n| u32::try_from(n).ok());
            let who_shown = String::from_utf8_lossy(who);
            let say =
                || format!("its ACL names {who_shown:?}, not a number: archive with --xattrs --xattrs-include='*' too");
            number.or((who == b"root").then_some(0)).ok_or_else(say)?
        }
    };
    Ok((tag, perm, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_what_the_kernel_has() {
        let value =
            parse(b"user::rwx,group::r-x,user:1000:rw-,group:staff:r--:50,mask::rwx\t#effective:r--\nother::---")
                .unwrap();
        let entry =
            |tag: u16, perm: u16, id: u32| [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat();
        let want = [
            2u32.to_le_bytes().to_vec(),
            entry(1, 7, NOBODY),
            entry(2, 6, 1000),
            entry(4, 5, NOBODY),
            entry(8, 4, 50),
            entry(0x10, 7, NOBODY),
            entry(0x20, 0, NOBODY),
        ];
        assert_eq!(value, want.concat());
        for bad in [&b"user"[..], b"user::rwz", b"who::rwx", b"user:bin:rwx", b"mask:5:rwx", b"user:99999999999:r"] {
            assert!(parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
