//! SHA256SUMS: the checksums of all files next to it, as `sha256sum -c` reads them.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::read;

const NAME: &str = "SHA256SUMS";

/// Returns the SHA-256 checksum in hexadecimal.
pub fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the checksums of all files of a directory, and returns the names of these files, and SHA256SUMS.
///
/// # Errors
/// A file cannot be read, or SHA256SUMS cannot be written.
pub fn write(packages: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(packages).with_context(|| format!("cannot read {}", packages.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_file() && name != NAME {
            names.push(name);
        }
    }
    names.sort();
    let mut lines = String::new();
    for name in &names {
        lines.push_str(&format!("{}  {name}\n", sha256(&read(&packages.join(name))?)));
    }
    crate::write(&packages.join(NAME), lines)?;
    names.push(NAME.to_owned());
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_each_file_but_itself() {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in [("b", "abc"), ("a", ""), (NAME, "former")] {
            fs::write(directory.path().join(name), content).unwrap();
        }
        assert_eq!(write(directory.path()).unwrap(), ["a", "b", NAME]);
        // FIPS 180-2 has both checksums.
        let expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a\n\
            ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  b\n";
        assert_eq!(fs::read_to_string(directory.path().join(NAME)).unwrap(), expected);
    }
}
