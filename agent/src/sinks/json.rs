//! One JSON object a line: the record as it is, for scripts.

use crate::model::Incident;

/// The record on one line, with its end.
pub fn line(incident: &Incident) -> Result<String, serde_json::Error> {
    let mut line = serde_json::to_string(incident)?;
    line.push('\n');
    Ok(line)
}

/// The same at the end of what is there.
pub fn write(to: &mut Vec<u8>, incident: &Incident) -> Result<(), serde_json::Error> {
    serde_json::to_writer(&mut *to, incident)?;
    to.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::fixture::World;

    #[test]
    fn a_record_is_one_line_and_comes_back_as_it_was() {
        let mut world = World::new("nginx");
        let a = world.refused();
        world.stack_reset(&a, Some("NO_SOCKET")).tell(a).pass(80_000).answered(502);
        let incident = world.incident();
        let line = line(&incident).unwrap();
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<Incident>(&line).unwrap(), incident);
        for part in
            [r#""v":1"#, r#""status":502"#, r#""seen":"wire""#, r#""cause":"no_listener""#, r#""confidence":"certain""#]
        {
            assert!(line.contains(part), "{part} in {line}");
        }
    }
}
