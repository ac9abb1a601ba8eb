/**
 * `holdfast/testing/histories`: an engine compared with the model on random histories. A door of
 * its own, since it needs fast-check and the rest of the kit does not.
 */
export {
  type Agreement,
  type AgreementOptions,
  agreeWithModel,
  describeAgreement,
} from '../random-histories.ts';
